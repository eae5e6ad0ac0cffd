"""Sandboxes that are started in advance, all alike, and wait to be used.

A waiting one uses memory but no CPU, and ends with this process.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from cloudpilot.engine.pending import Pending, follow
from cloudpilot.engine.reactor import reactor
from cloudpilot.engine.wall import END_TIMEOUT, Life
from cloudpilot.errors import InvalidArgumentException, SandboxEndedException, SandboxException

LARGEST = 512
"""Sandboxes in one pool: each costs the host about five processes and a few MiB, and a pool refills within seconds at any rate."""
_REFILL_PAUSE = 0.02
"""Seconds before a taken sandbox is replaced: whoever took it gets going first."""

T = TypeVar("T")


class Pool(Generic[T]):
    """Up to `size` sandboxes that wait. `start` begins a new one, `prepare` completes one that has started."""

    def __init__(self, start: Callable[[], Life], prepare: Callable[[Life], Coroutine[Any, Any, T]], size: int) -> None:
        if not 1 <= size <= LARGEST:
            raise InvalidArgumentException(f"A pool cannot hold {size} sandboxes", f"give 1 to {LARGEST}")
        self._start = start
        self._prepare = prepare
        self.size = size
        self.full: Pending[None] = Pending()
        self._lock = threading.Lock()
        self._starting: set[Life] = set()
        self._waiting: deque[tuple[Life, T]] = deque()
        self._closed = False
        self._refilling = False
        self._owner = os.getpid()
        self._fill()

    @property
    def waiting(self) -> int:
        """How many there are to be taken at once."""
        return len(self._waiting)

    def take(self) -> tuple[Life, T] | None:
        """One that waits, the oldest; none if there is none at this moment. It is replaced soon."""
        with self._lock:
            if self._closed:
                raise SandboxException("The pool is closed", "make another")
            if self._owner != os.getpid():
                # A forked child: those were its parent's.
                self._owner, self._refilling = os.getpid(), False
                self._starting.clear()
                self._waiting.clear()
            taken = None
            while self._waiting and taken is None:
                life, prepared = self._waiting.popleft()
                taken = None if life.gone.settled else (life, prepared)
            refill = not self._refilling
            self._refilling = True
        if refill:
            reactor().after(_REFILL_PAUSE, self._refill)
        return taken

    def _refill(self) -> None:
        self._refilling = False
        self._fill()

    def _fill(self) -> None:
        """Starts what is missing, as many at a time as there are cores."""
        while True:
            with self._lock:
                missing = self.size - len(self._starting) - len(self._waiting)
                if self._closed or missing <= 0 or len(self._starting) >= (os.cpu_count() or 1):
                    return
            try:
                life = self._start()
            except (SandboxException, OSError) as error:
                # Whoever takes next finds none, starts one, and is told why that is impossible.
                self.full.fail(error)
                return
            with self._lock:
                self._starting.add(life)
            life.gone.then(lambda life=life: self._lost(life))  # type: ignore[misc]
            follow(self._complete(life))

    async def _complete(self, life: Life) -> None:
        try:
            await life.ready
            prepared = await self._prepare(life)
        except (SandboxException, OSError) as error:
            # It is reaped when it has ended.
            life.end(_closed(life))
            with self._lock:
                self._starting.discard(life)
            self.full.fail(error)
            return
        with self._lock:
            self._starting.discard(life)
            closed = self._closed
            if not closed:
                self._waiting.append((life, prepared))
            full = len(self._waiting) >= self.size
        if closed:
            life.end(_closed(life))
        if full:
            self.full.resolve(None)
        self._fill()

    def _lost(self, life: Life) -> None:
        with self._lock:
            self._starting.discard(life)
            self._waiting = deque(each for each in self._waiting if each[0] is not life)

    async def close(self) -> None:
        """Ends those that wait, and returns when nothing of them is left. Those that were taken go on."""
        with self._lock:
            self._closed = True
            lives = [*self._starting, *(life for life, _ in self._waiting)]
            self._waiting.clear()
        self.full.fail(SandboxException("The pool is closed", "make another"))
        if self._owner != os.getpid():
            return
        for life in lives:
            life.end(_closed(life))
        for life in lives:
            reactor().limit(life.gone, END_TIMEOUT, "The end of the sandbox")  # type: ignore[arg-type]
            await life.gone


def _closed(life: Life) -> SandboxEndedException:
    return SandboxEndedException(f"The sandbox `{life.id}` ended with the pool that it waited in")
