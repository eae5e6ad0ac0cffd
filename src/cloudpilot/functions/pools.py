"""All functions' instances: started when calls wait, kept as long as it pays and the host has memory, ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING, Any

from cloudpilot.errors import SandboxException
from cloudpilot.functions import instance as instances
from cloudpilot.functions.admission import Admission
from cloudpilot.functions.call import Call, Outcome, Stream, problem
from cloudpilot.functions.demand import Demand, Demands
from cloudpilot.functions.errors import FunctionError
from cloudpilot.functions.launch import launch_of
from cloudpilot.functions.pool import Pool
from cloudpilot.functions.records import LATEST, Function, arn_of
from cloudpilot.functions.turns import Turns
from cloudpilot.hosting.failures import Failure, Kind
from cloudpilot.hosting.templates import Template

if TYPE_CHECKING:
    from cloudpilot.functions.instance import Instance
    from cloudpilot.functions.registry import Registry
    from cloudpilot.hosting.sandboxes import Sandboxes

STARTS_AT_ONCE = max(2, os.cpu_count() or 1)
"""Sandboxes that are started at the same time: starts are work for CPUs, and more at once would slow down everything else."""
LEAST_MEMORY_MB = 64
"""Memory of an instance, whatever its function asks for: an interpreter does not start with less."""
LINGER = 10.0
"""Seconds that an instance is kept even where the next call is expected much later: calls often come in twos and threes."""
MEASURE_EVERY = 20.0
"""Seconds between measurements of an instance's memory."""
_MEASURED_AT_ONCE = 8
_INSTANCE_LIFE = 23 * 3600
_SWEEP_PAUSE = 1.0
_SAVE_PAUSE = 30.0
_MOST_FAILURES_PAUSE = 60.0

log = logging.getLogger("cloudpilot.functions")


class Pools:
    """All functions' instances."""

    def __init__(self, registry: Registry, sandboxes: Sandboxes, admission: Admission | None = None) -> None:
        self._registry = registry
        self._sandboxes = sandboxes
        self._admission = admission or Admission()
        self._demands = Demands(registry)
        self._turns = Turns(STARTS_AT_ONCE)
        self._pools: dict[tuple[str, str, str], Pool] = {}
        self._retired: set[Pool] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False
        self._measured: dict[Instance, float] = {}
        self.on_log: Callable[[Function, bytes], None] = lambda _function, _data: None
        """Told what programs write, with lines of ours between."""
        self.base: Callable[[], Template] = lambda: Template("base")
        """What functions without an image start from. Its network is not theirs: the runtime interface is on a loopback of their own."""
        self._spawn(self._sweep())
        registry.on_change.append(self._changed)
        for demand in self._demands.known():
            with contextlib.suppress(FunctionError):
                self.prepare(registry.get(demand.project, demand.name, demand.version))

    def _spawn(self, coroutine: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def close(self) -> None:
        """Stops serving; instances are ended."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        self._demands.save()
        for pool in [*self._pools.values(), *self._retired]:
            for instance in list(pool.instances):
                pool.discard(instance)

    # Calls.

    async def invoke(self, function: Function, payload: bytes, client_context: str | None = None, qualifier: str | None = None) -> Outcome:
        """Calls a function; `qualifier` is what its caller named it by."""
        call = Call(payload, arn_of(function.name, qualifier), float(function.timeout), client_context=client_context)
        return await self._run(function, call)

    async def stream(
        self, function: Function, payload: bytes, client_context: str | None = None, qualifier: str | None = None
    ) -> AsyncIterator[bytes | Outcome]:
        """Calls a function. Answers the pieces of its answer as they come, and then what became of the call."""
        stream = Stream()
        call = Call(payload, arn_of(function.name, qualifier), float(function.timeout), client_context=client_context, stream=stream)
        running = self._spawn(self._run(function, call))
        running.add_done_callback(lambda _: stream.finish())
        try:
            async for piece in stream.pieces():
                yield piece
            yield await running
        finally:
            # The caller may have gone in the middle, and hears no more of how it ends.
            running.cancel()
            running.add_done_callback(lambda done: done.cancelled() or done.exception())

    async def _run(self, function: Function, call: Call) -> Outcome:
        pool = self.prepare(function)
        demand = pool.demand
        demand.enter(function.version)
        try:
            try:
                instance = pool.take_idle() or await self._wait(pool)
            except (Failure, SandboxException) as error:
                return Outcome("Unhandled", problem("Runtime.InstanceError", str(error)))
            try:
                outcome = await instance.serve(call)
            except asyncio.CancelledError:
                # The caller has gone; what the program does to an unfinished call is not the next caller's trouble.
                instance.end()
                raise
            finally:
                self._give_back(pool, instance)
            pool.took(outcome.seconds)
            outcome.call_id = call.id
            return outcome
        finally:
            demand.leave()

    @contextlib.asynccontextmanager
    async def borrowed(self, function: Function) -> AsyncIterator[Instance]:
        """An instance with room for one call, for callers that speak with its program themselves."""
        pool = self.prepare(function)
        pool.demand.enter(function.version)
        try:
            instance = pool.take_idle() or await self._wait(pool)
            started = time.monotonic()
            try:
                yield instance
            finally:
                self._give_back(pool, instance)
                pool.took(time.monotonic() - started)
        finally:
            pool.demand.leave()

    async def _wait(self, pool: Pool) -> Instance:
        turn = pool.line_up()
        self._scale(pool)
        return await pool.wait(turn)

    def _give_back(self, pool: Pool, instance: Instance) -> None:
        pool.offer(instance)
        if pool.waiting:
            self._scale(pool)
        if pool.retired and not pool.instances and not pool.waiting:
            self._retired.discard(pool)

    def prepare(self, function: Function) -> Pool:
        """The pool of that version as it is now."""
        key = function.project, function.name, function.version
        pool = self._pools.get(key)
        if pool is None or pool.function.revision != function.revision:
            if pool is not None:
                self._retire(pool)
            pool = self._pools[key] = Pool(function, self._demands.of(function.project, function.name), self._discarded)
            pool.provisioned = self._registry.provisioned(function.project, function.name).get(function.version, 0)
        return pool

    def _changed(self, project: str, name: str) -> None:
        """A function has changed, or its limits, or it has gone."""
        provisioned = self._registry.provisioned(project, name)
        for key, pool in list(self._pools.items()):
            if key[:2] == (project, name):
                if self._registry.is_current(pool.function):
                    pool.provisioned = provisioned.get(pool.function.version, 0)
                else:
                    self._retire(self._pools.pop(key))
        exists = True
        for version in {LATEST, *provisioned}:
            try:
                function = self._registry.get(project, name, version)
            except FunctionError:
                exists = exists and version != LATEST
            else:
                if version in provisioned:
                    self.prepare(function)
        self._demands.reread(project, name, exists=exists)

    def _retire(self, pool: Pool) -> None:
        pool.retire()
        if pool.instances or pool.waiting or pool.starting:
            self._retired.add(pool)

    # Instances.

    def _scale(self, pool: Pool) -> None:
        while pool.lacking():
            self._begin(pool)
        if pool.waiting and not pool.starting and len(pool.instances) < pool.limit:
            # It was not worth it yet; if the line does not move on, it will be.
            asyncio.get_running_loop().call_later(pool.start_seconds, self._look_again, pool)

    def _look_again(self, pool: Pool) -> None:
        if pool.waiting and not pool.starting:
            self._scale(pool)

    def _begin(self, pool: Pool) -> None:
        pool.starting += 1
        self._spawn(self._start(pool))

    async def _start(self, pool: Pool) -> None:
        begun = time.monotonic()
        instance: Instance | None = None
        try:
            try:
                async with self._turns.turn(pool.function.project):
                    if pool.retired and not pool.waiting:
                        return
                    instance = await self._create(pool)
                await instance.start(launch_of(pool.function, self._registry))
            finally:
                pool.starting -= 1
        except asyncio.CancelledError:
            if instance is not None:
                pool.discard(instance)
            raise
        except Exception as error:
            pool.failures += 1
            if instance is not None:
                pool.discard(instance)
            if not pool.instances and not pool.starting:
                pool.refuse(error)
            if not isinstance(error, (Failure, SandboxException, FunctionError)):
                raise
            log.warning("instance not started", extra={"function": pool.function.name, "error": str(error)})
            return
        pool.started(time.monotonic() - begun)
        pool.add(instance)
        if pool.waiting:
            self._scale(pool)

    async def _create(self, pool: Pool) -> Instance:
        function = pool.function
        memory_mb = max(function.memory_mb, LEAST_MEMORY_MB)
        token = object()
        self._admit(pool, memory_mb << 20)
        self._admission.started(token, pool.demand, memory_mb << 20)
        try:
            launch = launch_of(function, self._registry)
            root = launch.root or self.base().root
            template = Template(f"function:{function.name}", root=root, memory_mb=memory_mb, volumes=launch.volumes)
            sandbox = await self._sandboxes.create_for(function.project, template, timeout=_INSTANCE_LIFE)
        except Failure as failure:
            if failure.kind is Kind.LIMIT:
                raise FunctionError("TooManyRequestsException", failure.sentence(), "ConcurrentInvocationLimitExceeded") from None
            raise
        finally:
            self._admission.ended(token)
        instance = instances.make(sandbox, function, lambda data: self.on_log(function, data))
        self._admission.started(instance, pool.demand, memory_mb << 20)
        pool.instances[instance] = time.monotonic()
        return instance

    def _admit(self, pool: Pool, promised: int) -> None:
        """Refuses a start for which the host has no memory, even if what waits for calls is ended."""
        refusal = self._admission.refusal(pool.demand, promised)
        if refusal is None:
            return
        for victim_pool, victim in self._evictable():
            if victim_pool is not pool:
                victim_pool.discard(victim)
                refusal = self._admission.refusal(pool.demand, promised)
                if refusal is None:
                    return
        message = f"The host has no memory for another instance of `{pool.function.name}`: {refusal}; try again later"
        raise FunctionError("TooManyRequestsException", message, "ConcurrentInvocationLimitExceeded")

    def _discarded(self, pool: Pool, instance: Instance) -> None:
        self._admission.ended(instance)
        self._measured.pop(instance, None)
        if self._closed or pool.function.contract == "events":
            self._sandboxes.kill(instance.sandbox)
        else:
            self._spawn(self._part(instance))

    async def _part(self, instance: Instance) -> None:
        try:
            await instance.farewell()
        finally:
            self._sandboxes.kill(instance.sandbox)

    def _evictable(self) -> list[tuple[Pool, Instance]]:
        """Instances that wait for calls, those first that have waited longest. Provisioned ones are what their owners asked to be kept."""
        found = [
            (pool, instance)
            for pool in self._pools.values()
            for instance in sorted((each for each in pool.idle if each.busy == 0), key=lambda each: each.last_used)[
                : max(0, len(pool.instances) - pool.provisioned)
            ]
        ]
        return sorted(found, key=lambda each: each[1].last_used)

    # What is done now and then.

    async def _sweep(self) -> None:
        saved = time.monotonic()
        while True:
            await asyncio.sleep(_SWEEP_PAUSE)
            now = time.monotonic()
            for pool in list(self._pools.values()):
                self._keep(pool, now)
            if self._admission.used():
                self._relieve()
                await self._measure(now)
            if now - saved > _SAVE_PAUSE:
                saved = now
                self._demands.save()

    def _keep(self, pool: Pool, now: float) -> None:
        """Ends what is not worth keeping, starts what will be needed."""
        for instance in [each for each in pool.instances if each.busy == 0 and (each.over or pool.spent(each))]:
            pool.discard(instance)
        demand = pool.demand
        windows = demand.history.windows()
        since = 0.0 if demand.last_end is None else now - demand.last_end
        expected = pool.function.version == demand.version and 0 < windows.prewarm <= since <= windows.end
        wanted = max(pool.provisioned, 1 if expected else 0)
        keep = windows.keep_alive if windows.prewarm == 0 else LINGER
        for instance in list(pool.idle):
            if instance.busy == 0 and len(pool.instances) > wanted and now - instance.last_used > keep:
                pool.discard(instance)
        if len(pool.instances) + pool.starting < wanted and self._may_try(pool, now):
            pool.tried = now
            self._begin(pool)

    def _may_try(self, pool: Pool, now: float) -> bool:
        """Whether an instance that nobody waits for is to be tried: one that fails all the time less and less often."""
        pause = min(_MOST_FAILURES_PAUSE, 2.0**pool.failures) if pool.failures else 0.0
        return now - pool.tried >= pause

    def _relieve(self) -> None:
        """Ends instances that wait when the host is short of memory."""
        short = self._admission.shortage()
        if short <= 0:
            return
        ended = 0
        for pool, instance in self._evictable():
            if short <= 0:
                break
            short -= self._admission.use_of(instance)
            ended += 1
            pool.discard(instance)
        if ended:
            log.warning("instances ended for want of memory", extra={"ended": ended})

    async def _measure(self, now: float) -> None:
        """Asks a few sandboxes what they use."""
        due = [
            (pool, instance)
            for pool in self._pools.values()
            for instance in pool.instances
            if not instance.over and now - self._measured.get(instance, 0.0) > MEASURE_EVERY
        ][:_MEASURED_AT_ONCE]
        for pool, instance in due:
            self._measured[instance] = now
            try:
                stats = await instance.sandbox.inside.call("stats", {}, timeout=2.0)
                instance.memory_bytes = int(stats["memory_bytes"])
            except (Failure, SandboxException):
                self._measured.pop(instance, None)
                continue
            self._admission.measured(instance, pool.demand, instance.memory_bytes)

    def ready(self, project: str, name: str, version: str) -> int:
        """How many instances of a version there are."""
        pool = self._pools.get((project, name, version))
        return 0 if pool is None else sum(not instance.over for instance in pool.instances)

    def figures(self) -> dict[str, float]:
        """For `/metrics`."""
        pools = [*self._pools.values(), *self._retired]
        every: list[Demand] = list({id(pool.demand): pool.demand for pool in pools}.values())
        return {
            "instances": sum(len(pool.instances) for pool in pools),
            "idle": sum(len(pool.idle) for pool in pools),
            "waiting": sum(len(pool.waiting) for pool in pools),
            "under_way": sum(each.under_way for each in every),
        }
