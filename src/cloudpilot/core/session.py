"""A sandbox in use: its connection, its end, and what its commands have in common."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cloudpilot.engine import config, paths, records, wall
from cloudpilot.engine.client import REQUEST_TIMEOUT, Client, sense
from cloudpilot.engine.pending import Pending
from cloudpilot.engine.reactor import reactor
from cloudpilot.errors import InvalidArgumentException, SandboxEndedException, SandboxException, TimeoutException
from cloudpilot.types import SandboxInfo, SandboxMetrics

if TYPE_CHECKING:
    from cloudpilot.core.command import Command
    from cloudpilot.images.start import Start

_END_PAUSE = 0.005
_REASON_PATIENCE = 2.0
"""Seconds between the end of a connection and the news of why; without news the sandbox itself may live."""


class Session:
    """A sandbox in use by this process, whether it started it or not."""

    def __init__(self, sandbox_id: str, life: wall.Life | None, options: SessionOptions) -> None:
        self.id = sandbox_id
        self.life = life
        self.options = options
        self.commands: dict[int, Command] = {}
        self.watches: dict[int, Callable[[dict[str, Any]], None]] = {}
        self.closed: Pending[SandboxException] = Pending()
        self.shell = "/bin/bash"
        self._asked: tuple[float, float] | None = None
        """When somebody last asked for figures, and the processor seconds that had been spent then."""
        self.client = Client(sandbox_id, self._event, self._hung_up)
        if life is not None:
            life.gone.then(lambda: self._end(life.gone.result()))

    def _event(self, event: dict[str, Any]) -> None:
        if event.get("event") == "exited":
            command = self.commands.pop(event["pid"], None)
            if command is not None:
                command.exited(event.get("exit_code"), event.get("signal"))
        elif event.get("event") == "file":
            take = self.watches.get(event["watch"])
            if take is not None:
                take(event)

    def _hung_up(self) -> None:
        if self.life is None:
            self._end(SandboxEndedException(f"The sandbox `{self.id}` has ended"))
        else:
            lost = SandboxException(f"The sandbox `{self.id}` closed the connection", "`Sandbox.connect` makes another")
            reactor().after(_REASON_PATIENCE, lambda: self._end(lost))

    def _end(self, error: SandboxException) -> None:
        if not self.closed.resolve(error):
            return
        self.client.fail_all(error)
        for command in list(self.commands.values()):
            command.fail(error)
        self.commands.clear()
        self.client.close()

    def environment(self, user: str | None, envs: Mapping[str, str] | None) -> dict[str, str]:
        """The environment of a command."""
        return {**config.default_env(0 if user in (None, "root", "0") else 1), **self.options.envs, **(envs or {})}

    async def kill(self) -> bool:
        """Ends the sandbox and waits until nothing of it is left. Answers whether it was there."""
        if self.life is None:
            return await _shut_down(self)
        was_there = not self.life.gone.settled
        error = SandboxEndedException(f"The sandbox `{self.id}` was killed")
        self.life.end(error)
        reactor().limit(self.life.gone, wall.END_TIMEOUT, "The end of the sandbox")  # type: ignore[arg-type]
        await self.life.gone
        return was_there

    async def is_running(self) -> bool:
        """Whether the sandbox answers."""
        try:
            await self.client.call("ping", {}, timeout=REQUEST_TIMEOUT)
        except SandboxEndedException:
            return False
        except SandboxException:
            if self.closed.settled:
                return False
            raise
        return True

    async def metrics(self) -> SandboxMetrics:
        """What it has used until now."""
        answer = await self.client.call("stats", {})
        now = time.time()
        with sense():
            spent = (int(answer["cpu_user_ns"]) + int(answer["cpu_system_ns"])) / 1e9
            record = records.read(self.id) if self._asked is None else None
            asked, before = self._asked or (record.created if record else now, 0.0)
            self._asked = now, spent
            storage, network = answer["storage"], answer["network"]
            return SandboxMetrics(
                timestamp=datetime.fromtimestamp(now, UTC),
                cpu_used_pct=round(100 * max(0.0, spent - before) / max(1e-3, now - asked), 2),
                cpu_count=int(answer["cpus"]),
                mem_used=int(answer["memory_bytes"]),
                mem_total=int(answer["memory_limit_bytes"]),
                cpu_seconds=spent,
                processes=int(answer["processes"]),
                threads=int(answer["threads"]),
                storage_read_bytes=int(storage["read_bytes"]),
                storage_written_bytes=int(storage["written_bytes"]),
                storage_reads=int(storage["reads"]),
                storage_writes=int(storage["writes"]),
                network_received_bytes=int(network["received_bytes"]),
                network_sent_bytes=int(network["sent_bytes"]),
                network_received_packets=int(network["received_packets"]),
                network_sent_packets=int(network["sent_packets"]),
            )

    def set_timeout(self, seconds: float | None) -> None:
        """Lets the sandbox live for that long from now."""
        if self.life is None:
            raise InvalidArgumentException(
                f"The sandbox `{self.id}` was not started by this process, which therefore cannot change its deadline"
            )
        self.life.end_after(seconds or None)
        self.options.end_at = time.time() + seconds if seconds else None

    def info(self) -> SandboxInfo:
        """What it is."""
        record = records.read(self.id)
        if record is None or self.closed.settled:
            raise (self.closed.result() if self.closed.settled else SandboxEndedException(f"The sandbox `{self.id}` has ended"))
        return info_of(record, self.options)


class SessionOptions:
    """What its starter wants of a sandbox, beyond what the binary is told."""

    def __init__(
        self,
        envs: Mapping[str, str] | None = None,
        metadata: Mapping[str, str] | None = None,
        cwd: str | None = None,
        start: Start | None = None,
    ) -> None:
        # What its image says holds where nothing else is said.
        self.envs = {**(start.environment if start else {}), **(envs or {})}
        self.metadata = dict(metadata or {})
        self.cwd = cwd or (start.workdir if start else "/")
        self.user = "{uid}:{gid}".format(**start.user) if start else None
        self.end_at: float | None = None
        self.started_at: float | None = None
        """When it was put to use, where that was later than its start."""


_connecting = threading.Lock()
_sessions: dict[str, Session] = {}
"""Sandboxes in use by this process, so that `connect` finds connection, deadline and metadata again."""


def info_of(record: records.Record, options: SessionOptions | None) -> SandboxInfo:
    """What a sandbox's record says of it, and what we know besides."""
    end_at = options.end_at if options else None
    started_at = (options.started_at if options else None) or record.created
    return SandboxInfo(
        sandbox_id=record.id,
        name=record.name,
        metadata=dict(options.metadata) if options else {},
        started_at=datetime.fromtimestamp(started_at, UTC),
        end_at=None if end_at is None else datetime.fromtimestamp(end_at, UTC),
    )


async def create(settings: dict[str, Any], options: SessionOptions, timeout: float | None) -> Session:
    """Starts a sandbox."""
    life = wall.Life(settings)
    try:
        await life.ready
        session = Session(life.id, life, options)
    except BaseException:
        life.let_go()
        raise
    _keep(session)
    session.set_timeout(timeout)
    return session


def put_to_use(session: Session, options: SessionOptions, timeout: float | None) -> Session:
    """Makes a sandbox that was started in advance somebody's."""
    session.options = options
    options.started_at = time.time()
    _keep(session)
    session.set_timeout(timeout)
    return session


def connect(word: str) -> Session:
    """Connects to a sandbox that runs."""
    sandbox_id = word if word in _sessions else records.find(word).id
    with _connecting:
        session = _sessions.get(sandbox_id)
        if session is None or session.closed.settled:
            # Kept, since a sandbox takes only so many connections.
            session = _keep(Session(sandbox_id, None, SessionOptions()))
        return session


def _keep(session: Session) -> Session:
    _sessions[session.id] = session

    def forget() -> None:
        if _sessions.get(session.id) is session:
            del _sessions[session.id]

    session.closed.then(forget)
    return session


def running() -> list[SandboxInfo]:
    """Sandboxes of this user that run."""
    sessions = {name: session.options for name, session in _sessions.items()}
    return [info_of(record, sessions.get(record.id)) for record in records.running()]


def start_of(image: str | None, rootfs: str | os.PathLike[str] | None) -> Start | None:
    """What an image says about how commands are run, if there is one."""
    if image is None:
        return None
    if rootfs is not None:
        raise InvalidArgumentException("`image` and `rootfs` exclude each other", "leave one out")
    from cloudpilot.images.start import of_image
    from cloudpilot.images.store import Images

    return of_image(Images().get(image), None)


def configuration(
    *,
    start: Start | None,
    rootfs: str | os.PathLike[str] | None,
    volumes: Mapping[str, str] | None,
    memory: str | int | None,
    cpus: float | None,
    pids: int | None,
    network: str,
    name: str | None,
    hostname: str | None,
) -> dict[str, Any]:
    """What the binary is to be told."""
    if network not in config.NETWORKS:
        raise InvalidArgumentException(f"There is no network `{network}`", f"it is one of {', '.join(config.NETWORKS)}")
    if name is not None:
        records.check_name(name)
    sandbox_id = config.new_id()
    limits = {
        "memory_bytes": None if memory is None else config.parse_size(memory),
        "cpus": config.parse_cpus(cpus),
        "processes": pids,
    }
    root = {"kind": "host"} if rootfs is None else {"kind": "directory", "path": os.path.abspath(rootfs)}
    result: dict[str, Any] = {
        "id": sandbox_id,
        "name": name,
        "root": root if start is None else start.root,
        "volumes": [config.parse_volume(f"{host}:{guest}") for host, guest in (volumes or {}).items()],
        "limits": {key: value for key, value in limits.items() if value is not None},
        "network": network,
        "state_dir": paths.state_dir(sandbox_id),
    }
    return result if hostname is None else {**result, "hostname": hostname}


async def _shut_down(session: Session) -> bool:
    if session.closed.settled:
        return False
    try:
        await session.client.call("shutdown", {}, timeout=wall.END_TIMEOUT)
    except SandboxEndedException:
        pass
    # It is gone when its directory is, which its watchers remove last.
    deadline = time.monotonic() + wall.END_TIMEOUT
    while records.exists(session.id):
        if time.monotonic() > deadline:
            raise TimeoutException(f"The sandbox `{session.id}` has not ended within {wall.END_TIMEOUT:g} s", "try `pilot kill`")
        await reactor().pause(_END_PAUSE)
    return True
