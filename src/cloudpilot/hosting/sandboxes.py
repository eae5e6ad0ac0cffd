"""All sandboxes of the service: started, found again after a restart, ended when their time is up. The store remembers what they are."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cloudpilot.engine import config, detached, paths, records, wall
from cloudpilot.engine.detached import DetachedLife
from cloudpilot.engine.pending import Driven
from cloudpilot.errors import SandboxEndedException, SandboxException
from cloudpilot.hosting import sandbox_log
from cloudpilot.hosting.access import Access, Caller
from cloudpilot.hosting.agent import Agent, settle
from cloudpilot.hosting.failures import Failure, Kind
from cloudpilot.hosting.limits import LONGEST_LIFE
from cloudpilot.hosting.prepared import Prepared
from cloudpilot.hosting.sandbox_log import SandboxLog
from cloudpilot.hosting.templates import Template, Templates
from cloudpilot.store import Store, StoreError

MOST_METADATA = 64
"""Entries of a sandbox's metadata and of its environment."""
MOST_SAMPLES = 720
"""Figures that are kept of a sandbox, one for each time that somebody asked."""
LEAST_PROCESSES = 256
MOST_PROCESSES = 4096
"""Processes and threads of a sandbox, one for each MiB of its memory: each costs the host some hundred KiB that are not the guest's."""
_LOGS_PAUSE = 100
"""Sandboxes that end between two looks at old logs."""
_END_PAUSE = 0.005
_ORPHAN_PAUSE = 0.5
_READY_PAUSE = 0.1

log = logging.getLogger("cloudpilot.sandboxes")


@dataclass(eq=False)
class Sandbox:
    """A sandbox that the service looks after.

    Attributes:
        id: Its unique name.
        project: Whose it is.
        template: What it was started from.
        metadata: What its starter wants to find it by.
        envs: Environment of its commands.
        created: When it was started.
        end_at: When its time is up.
        memory_mb: Its memory.
        cpus: CPUs' worth of time.
        network: What its sockets reach.
        state: `starting`, `running`, `ending`.
        kind: `sandbox`, or `function` for an instance of one and `build` for one that an image is made in: these are the service's alone.
        user: Who commands run as where nothing is said; empty is root.
        workdir: Where they begin; empty is the user's home.
    """

    id: str
    project: str
    template: str
    metadata: dict[str, str]
    envs: dict[str, str]
    created: float
    end_at: float
    memory_mb: int
    cpus: float
    network: str
    state: str = "starting"
    kind: str = "sandbox"
    user: str = ""
    workdir: str = ""
    agent: Agent | None = None
    life: DetachedLife | None = None
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    samples: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MOST_SAMPLES))
    _timer: asyncio.TimerHandle | None = None

    def as_value(self) -> dict[str, Any]:
        """What the store keeps of it."""
        names = (
            "project",
            "template",
            "metadata",
            "envs",
            "created",
            "end_at",
            "memory_mb",
            "cpus",
            "network",
            "state",
            "kind",
            "user",
            "workdir",
        )
        return {name: getattr(self, name) for name in names}

    @property
    def inside(self) -> Agent:
        """What acts inside it."""
        if self.agent is None or self.state != "running":
            raise Failure(Kind.UNAVAILABLE, f"The sandbox was not found: `{self.id}` does not run")
        return self.agent


class Sandboxes:
    """All sandboxes of the service."""

    def __init__(self, store: Store, access: Access, templates: Templates, logs: str | None = None) -> None:
        self._store = store
        self._access = access
        self._templates = templates
        self._logs = logs
        self._all: dict[str, Sandbox] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._prepared = Prepared(_settings)
        self._ended = 0
        self.started = 0
        self.failed = 0

    def prepare(self) -> None:
        """Starts in advance what the templates, as they are now, want to have waiting."""
        self._prepared.fit(self._templates.prepared())

    def waiting(self) -> int:
        """How many sandboxes wait to be used."""
        return self._prepared.waiting

    # Looking.

    def get(self, sandbox_id: str, project: str | None = None) -> Sandbox:
        """One sandbox; those of other projects do not exist."""
        sandbox = self._all.get(sandbox_id)
        if (
            sandbox is None
            or sandbox.state != "running"
            or sandbox.kind != "sandbox"
            or (project is not None and sandbox.project != project)
        ):
            raise Failure(Kind.NOT_FOUND, f"Sandbox `{sandbox_id}` not found", remedy="it was killed, its time was up, or it never was")
        return sandbox

    def of(self, project: str) -> list[Sandbox]:
        """A project's sandboxes, the oldest first."""
        found = (each for each in self._all.values() if each.project == project and each.state == "running" and each.kind == "sandbox")
        return sorted(found, key=lambda each: (each.created, each.id))

    def count(self) -> int:
        """How many there are."""
        return len(self._all)

    # Starting.

    async def create(
        self,
        caller: Caller,
        template: Template,
        *,
        timeout: int,
        metadata: Mapping[str, str],
        envs: Mapping[str, str],
    ) -> Sandbox:
        """Starts a sandbox; it answers, and its template's probe succeeds, when this returns."""
        for name, given in (("metadata", metadata), ("envVars", envs)):
            if len(given) > MOST_METADATA:
                raise Failure(Kind.INVALID, f"There are more than {MOST_METADATA} entries", field=name, remedy="give fewer")
        self._check_timeout(timeout, 0)
        sandbox = await self.create_for(caller.project, template, timeout=timeout, metadata=metadata, envs=envs, kind="sandbox")
        self._access.note(caller, "sandbox.create", sandbox.id, template=template.name)
        return sandbox

    async def create_for(
        self,
        project: str,
        template: Template,
        *,
        timeout: int,
        metadata: Mapping[str, str] | None = None,
        envs: Mapping[str, str] | None = None,
        kind: str = "function",
    ) -> Sandbox:
        """Starts a sandbox for a project, or for the service itself."""
        cpus = template.cpus or float(os.cpu_count() or 1)
        others = [each for each in self._all.values() if each.project == project]
        wanted = {
            "most_sandboxes": len(others) + 1,
            "most_memory_mb": sum(each.memory_mb for each in others) + template.memory_mb,
            "most_cpus": sum(each.cpus for each in others) + cpus,
        }
        self._access.admit(project, wanted)
        life = self._prepared.take(template) if kind == "sandbox" else None
        now = time.time()
        sandbox = Sandbox(
            life.id if life else config.new_id(),
            project, template.name, dict(metadata or {}), {**template.envs, **(envs or {})}, now, now + timeout,
            template.memory_mb, cpus, template.network, kind=kind, user=template.user, workdir=template.workdir,
        )  # fmt: skip
        self._all[sandbox.id] = sandbox
        # Before it is started: whatever happens to us now, it is found again.
        self._remember(sandbox)
        try:
            await asyncio.shield(self._track(self._start(sandbox, template, life)))
        except asyncio.CancelledError:
            # Whoever wanted it has gone: nobody knows its name.
            self.kill(sandbox)
            raise
        return sandbox

    def _track(self, coroutine: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        # Whoever waited for it may have gone; then its failure is nobody's.
        task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
        return task

    async def _start(self, sandbox: Sandbox, template: Template, life: DetachedLife | None) -> None:
        try:
            if life is None:
                settings = _settings(sandbox.id, template)
                if sandbox.kind == "build":
                    # What is installed may be most of what it holds.
                    settings["limits"]["tmpfs_bytes"] = settings["limits"]["memory_bytes"]
                life = sandbox.life = DetachedLife(settings)
            else:
                sandbox.life = life
                life.put_to_use(LONGEST_LIFE * 1000)
            life.gone.then(lambda: self._from_engine(sandbox))
            await settle(life.ready)
            sandbox.agent = self._agent(sandbox)
            await self._prepare(sandbox.agent, template)
            if sandbox.state == "starting":
                sandbox.state = "running"
                # One that the store does not know as running would be ended by the next service.
                self._remember(sandbox)
        except BaseException as error:
            self.failed += 1
            self.kill(sandbox)
            if sandbox.life is None:
                self._forget(sandbox)
            log.warning("sandbox not started", extra={"sandbox": sandbox.id, "error": str(error)})
            raise
        if sandbox.state == "running":
            self.started += 1
            self._arm(sandbox)
            sandbox.agent.note("info", f"sandbox started from template {template.name}")

    def _agent(self, sandbox: Sandbox) -> Agent:
        # Instances of functions come and go by the thousand, and functions have logs of their own.
        log = SandboxLog(self._logs, sandbox.id, sandbox.project) if sandbox.kind == "sandbox" and self._logs else None
        hung_up = functools.partial(self._hung_up, sandbox)
        return Agent(sandbox.id, sandbox.envs, hung_up, sandbox.user, sandbox.workdir, log)

    def log_of(self, sandbox_id: str, project: str) -> list[dict[str, Any]]:
        """The log of a sandbox that runs, or that ended not long ago."""
        found = sandbox_log.read(self._logs, sandbox_id, project) if self._logs else None
        if found is None:
            # Says so as it is said of sandboxes.
            self.get(sandbox_id, project)
        return found or []

    async def _prepare(self, agent: Agent, template: Template) -> None:
        # E2B's programs begin in a home that exists.
        await agent.call("make_dir", {"path": "/root", "user": None})
        if template.start_command:
            started = await agent.start(["/bin/sh", "-c", template.start_command], tag="start_command")
            self._track(agent.note_output(started, source="start_command"))
        if not template.ready_command:
            return
        deadline = time.monotonic() + template.ready_timeout
        while True:
            process = await agent.start(["/bin/sh", "-c", template.ready_command])
            async for item in process.output():
                last = item
            if getattr(last, "code", None) == 0:
                return
            if time.monotonic() > deadline:
                text = f"The template `{template.name}` was not ready within {template.ready_timeout:g} s"
                raise Failure(Kind.TIMEOUT, text, remedy="look at its `start_command` and `ready_command`")
            await asyncio.sleep(_READY_PAUSE)

    # After a restart.

    async def adopt(self) -> tuple[int, int]:
        """Finds again what an earlier service started. Answers how many sandboxes run, and how many have ended meanwhile."""
        lost = 0
        for entry in self._store.range("sandboxes/"):
            sandbox_id = entry.key.removeprefix("sandboxes/")
            sandbox = Sandbox(sandbox_id, **entry.value)
            record = records.read(sandbox_id)
            # An instance of a function was cut off from its calls: it can serve no more.
            if sandbox.state != "running" or sandbox.kind != "sandbox":
                self._track(self._end_orphan(sandbox_id))
                self._store.transact({entry.key: None})
                lost += 1
                continue
            try:
                if record is None or not record.lives():
                    raise SandboxEndedException(f"The sandbox `{sandbox_id}` has ended")
                sandbox.agent = self._agent(sandbox)
            except SandboxException:
                self._store.transact({entry.key: None})
                self._access.note(None, "sandbox.lost", sandbox_id)
                lost += 1
                continue
            self._all[sandbox_id] = sandbox
            sandbox.agent.note("info", "sandbox adopted by a restarted service")
            self._arm(sandbox)
        if self._logs:
            sandbox_log.forget_old(self._logs, set(self._all))
        return len(self._all), lost

    async def _end_orphan(self, sandbox_id: str) -> None:
        """Ends a sandbox that the earlier service was just starting or ending: it may still be about to appear."""
        deadline = time.monotonic() + wall.START_TIMEOUT
        while time.monotonic() < deadline:
            record = records.read(sandbox_id)
            if record is not None:
                detached.end(record)
            await asyncio.sleep(_ORPHAN_PAUSE)
            if record is not None and not records.exists(sandbox_id):
                return

    # Ending.

    def _arm(self, sandbox: Sandbox) -> None:
        if sandbox._timer is not None:
            sandbox._timer.cancel()
        delay = max(0.0, sandbox.end_at - time.time())
        sandbox._timer = asyncio.get_running_loop().call_later(delay, self._expire, sandbox)

    def _expire(self, sandbox: Sandbox) -> None:
        if sandbox.state == "running":
            self._access.note(None, "sandbox.timeout", sandbox.id)
            self.kill(sandbox)

    def _check_timeout(self, timeout: int, age: float) -> None:
        if not 0 <= timeout <= LONGEST_LIFE - age:
            remedy = f"give 0 to {int(LONGEST_LIFE - age)} seconds"
            raise Failure(Kind.INVALID, f"A sandbox lives at most {LONGEST_LIFE // 3600} hours in all", field="timeout", remedy=remedy)

    def set_timeout(self, caller: Caller, sandbox: Sandbox, timeout: int, *, only_longer: bool = False) -> None:
        """Lets a sandbox live for that long from now."""
        now = time.time()
        self._check_timeout(timeout, now - sandbox.created)
        if only_longer and now + timeout <= sandbox.end_at:
            return
        before, sandbox.end_at = sandbox.end_at, now + timeout
        try:
            self._remember(sandbox)
        except StoreError:
            sandbox.end_at = before
            raise
        self._arm(sandbox)
        self._access.note(caller, "sandbox.timeout.set", sandbox.id, timeout=timeout)

    def kill(self, sandbox: Sandbox) -> None:
        """Ends a sandbox; `gone` tells when nothing of it is left."""
        if sandbox.state == "ending":
            return
        sandbox.state = "ending"
        if sandbox.id in self._all:
            self._remember_end(sandbox, sandbox.as_value())
        if sandbox.life is not None:
            sandbox.life.end(SandboxEndedException(f"The sandbox `{sandbox.id}` was killed"))
        else:
            record = records.read(sandbox.id)
            if record is not None:
                detached.end(record)

    async def kill_and_wait(self, caller: Caller, sandbox: Sandbox) -> None:
        """Ends a sandbox, and waits until nothing of it is left."""
        self.kill(sandbox)
        self._access.note(caller, "sandbox.kill", sandbox.id)
        try:
            await asyncio.wait_for(sandbox.gone.wait(), wall.END_TIMEOUT)
        except TimeoutError:
            raise Failure(Kind.TIMEOUT, f"The sandbox `{sandbox.id}` takes long to end", remedy="ask again") from None

    def _from_engine(self, sandbox: Sandbox) -> None:
        # In the engine's thread.
        try:
            self._loop.call_soon_threadsafe(self._forget, sandbox)
        except RuntimeError:
            pass  # The service has ended before the sandbox.

    def _hung_up(self, sandbox: Sandbox) -> None:
        if sandbox.life is None:
            self._track(self._watch_end(sandbox))
        elif sandbox.state == "running":
            sandbox.state = "ending"

    async def _watch_end(self, sandbox: Sandbox) -> None:
        """Waits for the end of a sandbox that is not our child: its directory is removed last."""
        sandbox.state = "ending"
        deadline = time.monotonic() + wall.END_TIMEOUT
        while records.exists(sandbox.id) and time.monotonic() < deadline:  # noqa: ASYNC110 -- directories tell nobody
            await asyncio.sleep(_END_PAUSE)
        self._forget(sandbox)

    def _forget(self, sandbox: Sandbox) -> None:
        if sandbox._timer is not None:
            sandbox._timer.cancel()
        if self._all.pop(sandbox.id, None) is not None:
            self._remember_end(sandbox, None)
            reason = str(sandbox.life.gone.result()) if sandbox.life is not None and sandbox.life.gone.settled else "it has ended"
            log.info("sandbox ended", extra={"sandbox": sandbox.id, "reason": reason})
            self._access.note(None, "sandbox.ended", sandbox.id, reason=reason)
            if sandbox.agent is not None:
                sandbox.agent.note("info", f"sandbox ended: {reason}")
            self._ended += 1
            if self._logs and self._ended % _LOGS_PAUSE == 0:
                sandbox_log.forget_old(self._logs, set(self._all))
        if sandbox.agent is not None:
            sandbox.agent.close()
        sandbox.gone.set()

    def _remember(self, sandbox: Sandbox) -> None:
        self._store.transact({f"sandboxes/{sandbox.id}": sandbox.as_value()})

    def _remember_end(self, sandbox: Sandbox, value: dict[str, Any] | None) -> None:
        """Writes down that a sandbox ends or has ended, if the store can be written: the next start finds out what it does not say."""
        try:
            self._store.transact({f"sandboxes/{sandbox.id}": value})
        except StoreError as error:
            log.warning("the end of a sandbox could not be written down", extra={"sandbox": sandbox.id, "error": str(error)})

    def let_go(self) -> None:
        """Stops looking after them; they go on, but for those that wait to be used."""
        self._prepared.close()
        for sandbox in self._all.values():
            if sandbox._timer is not None:
                sandbox._timer.cancel()
            if sandbox.agent is not None:
                sandbox.agent.close()

    # Figures.

    async def sample(self, sandbox: Sandbox) -> dict[str, Any]:
        """Figures of now, kept with those of earlier questions."""
        stats = await Driven(_stats(sandbox.inside))
        now = time.time()
        spent = (int(stats["cpu_user_ns"]) + int(stats["cpu_system_ns"])) / 1e9
        before = sandbox.samples[-1] if sandbox.samples else {"time": sandbox.created, "spent": 0.0}
        used = 100 * max(0.0, spent - before["spent"]) / max(1e-3, now - before["time"])
        sample = {
            "time": now,
            "spent": spent,
            "cpu_percent": round(used, 2),
            "memory_bytes": int(stats["memory_bytes"]),
            "memory_limit_bytes": int(stats["memory_limit_bytes"]),
            "processes": int(stats["processes"]),
            "storage": {name: int(value) for name, value in stats["storage"].items()},
            "network": {name: int(value) for name, value in stats["network"].items()},
        }
        sandbox.samples.append(sample)
        return sample


def _settings(sandbox_id: str, template: Template) -> dict[str, Any]:
    """What the binary is told."""
    processes = min(MOST_PROCESSES, max(LEAST_PROCESSES, template.memory_mb))
    limits: dict[str, Any] = {"memory_bytes": template.memory_mb << 20, "processes": processes}
    if template.cpus:
        limits["cpus"] = template.cpus
    return {
        "id": sandbox_id,
        "hostname": sandbox_id,
        "root": template.root_setting,
        "limits": limits,
        "network": template.network,
        "volumes": template.volumes,
        "state_dir": paths.state_dir(sandbox_id),
        "timeout_ms": LONGEST_LIFE * 1000,
    }


async def _stats(agent: Agent) -> dict[str, Any]:
    result: dict[str, Any] = await agent.client.call("stats", {})
    return result
