"""The instances of one version of a function, and the calls that wait for one."""

from __future__ import annotations

import asyncio
import os
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from cloudpilot.functions.errors import FunctionError

if TYPE_CHECKING:
    from cloudpilot.functions.demand import Demand
    from cloudpilot.functions.instance import Instance
    from cloudpilot.functions.records import Function

MOST_INSTANCES = 10
"""Instances of a function at a time that has no limit of its own: one function is not to take the whole host."""
QUEUE_PATIENCE = 60.0
"""Seconds that a call waits for an instance; after that, its caller rather tries again."""
MOST_AGE = 12 * 3600.0
"""Seconds after which an instance gets no more calls. Its sandbox ends after 23 hours, whatever it does: no call is to be there then."""
_AT_ONCE = os.cpu_count() or 1
"""Instances up to which every waiting call is a reason to start one: as many can really work at the same time."""
_FIRST_START = 0.1
"""Seconds that a start is expected to take before there was one."""
_OLD, _NEW = 0.9, 0.1
"""Weights of what was known and of what was seen last, for running means."""


class Pool:
    """The instances of one version.

    Attributes:
        function: That version.
        demand: The calls of all versions together.
        instances: All that there are, and when they were started.
        idle: Those that could serve another call, the last used one last.
        waiting: Calls that wait for one.
        starting: How many are being started.
        provisioned: How many are to be kept ready.
        retired: Whether another has taken its place: those that wait are served, nobody else.
        failures: Starts in a row that failed.
        tried: When one was started last without a call that waits for it.
        start_seconds: What a start takes.
    """

    def __init__(self, function: Function, demand: Demand, discarded: Callable[[Pool, Instance], None]) -> None:
        self.function = function
        self._discarded = discarded
        self.demand = demand
        self.instances: dict[Instance, float] = {}
        self.idle: list[Instance] = []
        self.waiting: deque[tuple[float, asyncio.Future[Instance]]] = deque()
        self.starting = 0
        self.provisioned = 0
        self.retired = False
        self.failures = 0
        self.tried = 0.0
        self.start_seconds = _FIRST_START
        self._call_seconds: float | None = None

    @property
    def limit(self) -> int:
        """Instances that there may be."""
        return max(MOST_INSTANCES if self.demand.reserved is None else self.demand.reserved, self.provisioned)

    def lacking(self) -> bool:
        """Whether another instance is to be started for the calls that wait."""
        while self.waiting and self.waiting[0][1].done():
            self.waiting.popleft()  # Whoever waited there has gone.
        capacity = max(1, self.function.calls_per_instance)
        count = len(self.instances) + self.starting
        if count >= self.limit or len(self.waiting) <= self.starting * capacity:
            return False
        if count < _AT_ONCE or self._call_seconds is None:
            return True
        # Where the line moves on more quickly than an instance starts, one more would come too late.
        wait = len(self.waiting) * self._call_seconds / (count * capacity)
        return max(wait, time.monotonic() - self.waiting[0][0]) > self.start_seconds

    def took(self, seconds: float) -> None:
        """A call took that long."""
        self._call_seconds = seconds if self._call_seconds is None else _OLD * self._call_seconds + _NEW * seconds

    def started(self, seconds: float) -> None:
        """A start took that long."""
        self.start_seconds = _OLD * self.start_seconds + _NEW * seconds

    def take_idle(self) -> Instance | None:
        """An instance that can serve another call, if there is one."""
        while self.idle:
            instance = self.idle[-1]
            if instance.over or self.spent(instance):
                self._let_go(instance)
                continue
            instance.busy += 1
            if instance.busy >= instance.capacity:
                self.idle.pop()
            return instance
        return None

    def line_up(self) -> asyncio.Future[Instance]:
        """A place in the line of those that wait."""
        turn: asyncio.Future[Instance] = asyncio.get_running_loop().create_future()
        self.waiting.append((time.monotonic(), turn))
        return turn

    async def wait(self, turn: asyncio.Future[Instance]) -> Instance:
        """Waits for an instance."""
        try:
            async with asyncio.timeout(QUEUE_PATIENCE):
                return await turn
        except TimeoutError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.offer(turn.result())
            message = f"No instance of `{self.function.name}` was free within {QUEUE_PATIENCE:g} s"
            raise FunctionError("TooManyRequestsException", message, "ConcurrentInvocationLimitExceeded") from None
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                self.offer(turn.result())
            raise

    def offer(self, instance: Instance) -> None:
        """Gives an instance's place for a call, which somebody has held, to who waits; else it stays free."""
        spent = instance.over or self.spent(instance)
        if not spent and self._hand(instance):
            return
        instance.busy -= 1
        instance.last_used = time.monotonic()
        if spent or self.retired:
            self._let_go(instance)
        elif instance not in self.idle:
            self.idle.append(instance)

    def add(self, instance: Instance) -> None:
        """Takes an instance that has started, or failed to: then one of those that wait is to hear why."""
        instance.busy = 1
        if instance.over:
            self.failures += 1
            if not self._hand(instance):
                self.offer(instance)
            return
        self.failures = 0
        while instance.busy < instance.capacity and self._hand(instance):
            instance.busy += 1
        self.offer(instance)

    def _hand(self, instance: Instance) -> bool:
        while self.waiting:
            _, turn = self.waiting.popleft()
            if not turn.done():
                turn.set_result(instance)
                return True
        return False

    def spent(self, instance: Instance) -> bool:
        """Whether an instance is too old for another call."""
        born = self.instances.get(instance)
        return born is not None and time.monotonic() - born > MOST_AGE

    def _let_go(self, instance: Instance) -> None:
        """An instance gets no more calls; it ends with its last one."""
        if instance.busy == 0:
            self.discard(instance)
        elif instance in self.idle:
            self.idle.remove(instance)

    def discard(self, instance: Instance) -> None:
        """Ends an instance."""
        self.instances.pop(instance, None)
        if instance in self.idle:
            self.idle.remove(instance)
        instance.end()
        self._discarded(self, instance)

    def retire(self) -> None:
        """Another takes its place."""
        self.retired = True
        for instance in [each for each in self.instances if each.busy == 0]:
            self.discard(instance)

    def refuse(self, error: Exception) -> None:
        """No instance can be had: whoever waits is told so."""
        while self.waiting:
            _, turn = self.waiting.popleft()
            if not turn.done():
                turn.set_exception(error)
