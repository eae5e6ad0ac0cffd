"""Answers that are still to come, and how code that awaits them runs.

The SDK's logic is written once, as coroutines that await nothing but `Pending`. `drive` runs such a coroutine in a thread that blocks,
without asyncio; `Driven` lets an asyncio task await it. Whoever makes a `Pending` sees to it that it is settled: by an answer, by the
end of the sandbox, or by a deadline.
"""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")


class Pending(Generic[T]):
    """An answer that is still to come."""

    __slots__ = ("_callbacks", "_error", "_lock", "_settled", "_value")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._settled = False
        self._value: T | None = None
        self._error: BaseException | None = None
        self._callbacks: list[Callable[[], None]] = []

    def resolve(self, value: T) -> bool:
        """Settles it with a value; the first to settle it counts."""
        return self._settle(value, None)

    def fail(self, error: BaseException) -> bool:
        """Settles it with an error."""
        return self._settle(None, error)

    def _settle(self, value: T | None, error: BaseException | None) -> bool:
        with self._lock:
            if self._settled:
                return False
            self._value, self._error, self._settled = value, error, True
            callbacks, self._callbacks = self._callbacks, []
        for callback in callbacks:
            callback()
        return True

    @property
    def settled(self) -> bool:
        """Whether the answer has come."""
        return self._settled

    def then(self, callback: Callable[[], None]) -> None:
        """Calls back once it is settled, in the thread that settles it, or at once."""
        with self._lock:
            if not self._settled:
                self._callbacks.append(callback)
                return
        callback()

    def wait(self) -> None:
        """Blocks until it is settled."""
        if not self._settled:
            arrived = threading.Lock()
            arrived.acquire()
            self.then(arrived.release)
            arrived.acquire()

    def result(self) -> T:
        """The answer, once it is settled."""
        if self._error is not None:
            raise self._error
        return cast("T", self._value)

    def __await__(self) -> Generator[Pending[T], None, T]:
        if not self._settled:
            yield self
        return self.result()


def drive(coroutine: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine that awaits nothing but `Pending` in this thread."""
    error: BaseException | None = None
    while True:
        try:
            pending = coroutine.send(None) if error is None else coroutine.throw(error)
        except StopIteration as stop:
            return cast("T", stop.value)
        error = None
        try:
            pending.wait()
        except BaseException as interruption:  # Ctrl-C: the coroutine tidies up
            error = interruption


def follow(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine that awaits nothing but `Pending`, and that deals with its errors itself, in whatever threads settle these."""
    try:
        pending = coroutine.send(None)
    except StopIteration:
        return
    pending.then(lambda: follow(coroutine))


class Driven(Awaitable[T]):
    """A coroutine that awaits `Pending`, and maybe futures of asyncio, as something that an asyncio task can await."""

    __slots__ = ("_coroutine",)

    def __init__(self, coroutine: Coroutine[Any, Any, T]) -> None:
        self._coroutine = coroutine

    def __await__(self) -> Generator[Any, Any, T]:
        error: BaseException | None = None
        while True:
            try:
                item = self._coroutine.send(None) if error is None else self._coroutine.throw(error)
            except StopIteration as stop:
                return cast("T", stop.value)
            error = None
            try:
                if isinstance(item, Pending):
                    yield from _future(item).__await__()
                else:
                    yield item
            except BaseException as interruption:
                error = interruption


def _future(pending: Pending[Any]) -> asyncio.Future[None]:
    import asyncio

    loop = asyncio.get_running_loop()
    future: asyncio.Future[None] = loop.create_future()

    def settle() -> None:
        if not future.done():
            future.set_result(None)

    def arrived() -> None:
        try:
            loop.call_soon_threadsafe(settle)
        except RuntimeError:
            pass  # The loop is closed: nobody waits any more.

    pending.then(arrived)
    return future
