"""The instances that serve functions, and the calls that wait for one."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudpilot.errors import SandboxException
from cloudpilot.functions.errors import FunctionError
from cloudpilot.functions.instance import Call, Instance, problem
from cloudpilot.functions.launch import launch_of
from cloudpilot.service.failures import Failure
from cloudpilot.service.templates import Template

if TYPE_CHECKING:
    from cloudpilot.functions.records import Function
    from cloudpilot.functions.registry import Registry
    from cloudpilot.service.sandboxes import Sandboxes

MOST_INSTANCES = 10
"""Instances of one function at a time: each has the memory that the function asks for."""
MOST_WAITING = 1000
"""Calls of one function that wait for an instance; more are refused, as with Lambda's limit of concurrency."""
KEEP_ALIVE = 600.0
"""Seconds that an instance waits for its next call, as Lambda is said to have it."""
_INSTANCE_LIFE = 23 * 3600
_SWEEP_PAUSE = 5.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a call.

    Attributes:
        error: What failed, if the function did.
        answer: What it answered, or how it failed.
        log_tail: The end of what it wrote, in base64.
    """

    error: str | None
    answer: bytes
    log_tail: bytes


class Pool:
    """The instances of one revision of a function."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self.idle: list[Instance] = []
        self.count = 0
        self.waiting: deque[asyncio.Future[Instance | None]] = deque()
        self.retired = False


class Pools:
    """The pools of all functions."""

    def __init__(self, registry: Registry, sandboxes: Sandboxes) -> None:
        self._registry = registry
        self._sandboxes = sandboxes
        self._pools: dict[tuple[str, str, str], Pool] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._spawn(self._sweep())
        registry.on_change.append(self._changed)

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def close(self) -> None:
        """Stops serving; instances are ended."""
        for task in list(self._tasks):
            task.cancel()
        for pool in self._pools.values():
            self._retire(pool)

    def _changed(self, project: str, name: str) -> None:
        for key, pool in list(self._pools.items()):
            if key[:2] == (project, name) and not self._registry.is_current(pool.function):
                self._retire(self._pools.pop(key))

    # Instances.

    def _retire(self, pool: Pool) -> None:
        pool.retired = True
        for instance in pool.idle:
            self._discard(pool, instance)
        pool.idle.clear()

    def _discard(self, pool: Pool, instance: Instance) -> None:
        instance.end()
        self._sandboxes.kill(instance.sandbox)
        pool.count -= 1

    async def _take(self, pool: Pool) -> Instance:
        while True:
            while pool.idle:
                instance = pool.idle.pop()
                if not instance.over.is_set():
                    return instance
                self._discard(pool, instance)
            if pool.count < MOST_INSTANCES:
                return await self._start(pool)
            if len(pool.waiting) >= MOST_WAITING:
                raise FunctionError("TooManyRequestsException", "Rate Exceeded.")
            turn: asyncio.Future[Instance | None] = asyncio.get_running_loop().create_future()
            pool.waiting.append(turn)
            try:
                instance_or_room = await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled() and (given := turn.result()) is not None:
                    self._give_back(pool, given)
                raise
            if instance_or_room is not None:
                return instance_or_room

    def _give_back(self, pool: Pool, instance: Instance) -> None:
        usable = not instance.over.is_set() and not pool.retired
        if not usable:
            self._discard(pool, instance)
        while pool.waiting:
            turn = pool.waiting.popleft()
            if not turn.done():
                turn.set_result(instance if usable else None)
                return
        if usable:
            pool.idle.append(instance)

    async def _start(self, pool: Pool) -> Instance:
        function = pool.function
        pool.count += 1
        try:
            launch = launch_of(function, self._registry.codes)
            template = Template(
                f"function:{function.name}", root=launch.root, memory_mb=max(function.memory_mb, 64), volumes=launch.volumes
            )
            sandbox = await self._sandboxes.create_for(function.project, template, timeout=_INSTANCE_LIFE)
            instance = Instance(sandbox)
            await instance.start(launch.args, launch.env)
            return instance
        except BaseException:
            pool.count -= 1
            while pool.waiting:
                turn = pool.waiting.popleft()
                if not turn.done():
                    turn.set_result(None)
                    break
            raise

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(_SWEEP_PAUSE)
            now = time.monotonic()
            for pool in self._pools.values():
                stale = [each for each in pool.idle if now - each.last_used > KEEP_ALIVE or each.over.is_set()]
                for instance in stale:
                    pool.idle.remove(instance)
                    self._discard(pool, instance)

    # Calls.

    async def invoke(self, function: Function, payload: bytes) -> Outcome:
        """Calls a function."""
        key = function.project, function.name, function.version
        pool = self._pools.get(key)
        if pool is None or pool.function.revision != function.revision:
            if pool is not None:
                self._retire(pool)
            pool = self._pools[key] = Pool(function)
        try:
            instance = await self._take(pool)
        except (Failure, SandboxException) as error:
            return Outcome("Unhandled", problem("Runtime.InstanceError", str(error)), b"")
        call = Call(payload, time.time() + function.timeout, function.arn)
        try:
            return Outcome(*await instance.serve(call, float(function.timeout)))
        except asyncio.CancelledError:
            # The caller has gone; what the program does to an unfinished call is not the next caller's trouble.
            instance.end()
            raise
        finally:
            self._give_back(pool, instance)
