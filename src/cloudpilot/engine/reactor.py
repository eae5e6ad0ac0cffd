"""One thread that watches over all descriptors and deadlines of this process's sandboxes. It is started when it is first needed.

Callbacks run in that thread; they do not block.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import sys
import threading
import time
from collections.abc import Callable

from cloudpilot.engine.pending import Pending
from cloudpilot.errors import TimeoutException

READABLE = select.EPOLLIN
WRITABLE = select.EPOLLOUT


class Timer:
    """A deadline; cancelled if what it is for has happened."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forgets it."""
        self.callback = None


class Reactor:
    """Watches descriptors and deadlines."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._wake, READABLE)
        self._watched: dict[int, Callable[[], None]] = {}
        self._lock = threading.Lock()
        self._timers: list[tuple[float, int, Timer]] = []
        self._count = itertools.count()
        threading.Thread(target=self._run, name="cloudpilot", daemon=True).start()

    def watch(self, descriptor: int, events: int, callback: Callable[[], None]) -> None:
        """Calls back whenever the descriptor is ready, until it is unwatched."""
        self._watched[descriptor] = callback
        self._epoll.register(descriptor, events)

    def unwatch(self, descriptor: int) -> None:
        """Stops watching; to be done before the descriptor is closed."""
        if self._watched.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def after(self, seconds: float, callback: Callable[[], None]) -> Timer:
        """Calls back when that time has passed."""
        timer = Timer(callback)
        entry = (time.monotonic() + seconds, next(self._count), timer)
        with self._lock:
            heapq.heappush(self._timers, entry)
            earliest = self._timers[0] is entry
        if earliest:
            os.eventfd_write(self._wake, 1)
        return timer

    def limit(self, pending: Pending[object], seconds: float | None, what: str) -> None:
        """Fails what is pending when that time has passed; none is no limit."""
        if seconds is not None and not pending.settled:
            message = f"{what} took longer than {seconds:g} s"
            timer = self.after(seconds, lambda: void(pending.fail(TimeoutException(message))))
            pending.then(timer.cancel)

    async def ready(self, descriptor: int, events: int, seconds: float | None, what: str) -> None:
        """Waits until the descriptor, which nobody else watches, is ready. Once this has ended, it may be closed."""
        pending: Pending[None] = Pending()
        self.watch(descriptor, events, lambda: void(pending.resolve(None)))
        self.limit(pending, seconds, what)  # type: ignore[arg-type]
        try:
            await pending
        finally:
            self.unwatch(descriptor)
            # Whoever was cancelled leaves no deadline behind.
            pending.resolve(None)

    def pause(self, seconds: float) -> Pending[None]:
        """Pending for that time."""
        pending: Pending[None] = Pending()
        self.after(seconds, lambda: void(pending.resolve(None)))
        return pending

    def _run(self) -> None:
        while True:
            for descriptor, _ in self._epoll.poll(self._next_deadline()):
                if descriptor == self._wake:
                    os.eventfd_read(self._wake)
                else:
                    self._call(self._watched.get(descriptor))
            while (timer := self._due()) is not None:
                self._call(timer.callback)

    def _next_deadline(self) -> float:
        with self._lock:
            while self._timers and self._timers[0][2].callback is None:
                heapq.heappop(self._timers)
            return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else -1.0

    def _due(self) -> Timer | None:
        with self._lock:
            due = self._timers and self._timers[0][0] <= time.monotonic()
            return heapq.heappop(self._timers)[2] if due else None

    def _call(self, callback: Callable[[], None] | None) -> None:
        if callback is not None:
            try:
                callback()
            except Exception:
                # One sandbox's trouble must not end the thread that serves all of them.
                sys.excepthook(*sys.exc_info())


def void(_: object) -> None:
    """Takes an answer of which nobody wants to know."""


_reactor: Reactor | None = None
_making = threading.Lock()


def reactor() -> Reactor:
    """The reactor of this process."""
    global _reactor
    if _reactor is None:
        with _making:
            if _reactor is None:
                _reactor = Reactor()
    return _reactor


def _forget() -> None:
    # A forked child has no such thread; it makes one of its own.
    global _reactor, _making
    _reactor = None
    _making = threading.Lock()


os.register_at_fork(after_in_child=_forget)
