"""Programs inside a sandbox: what they write is handed to whoever listens, slowly enough for the slowest of them."""

from __future__ import annotations

import asyncio
import os
import signal as signals
import time
import weakref
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from cloudpilot.hosting.failures import Failure, Kind

_CHUNK = 64 << 10
MOST_WAITING = 1 << 20
"""Bytes that one listener may be behind; then the program waits, as it would with a pipe."""


@dataclass(frozen=True, slots=True)
class Output:
    """Something that a program wrote: to `stdout`, `stderr` or its terminal, `pty`."""

    kind: str
    data: bytes


@dataclass(frozen=True, slots=True)
class End:
    """How a program ended; `code` is -1 if a signal did it."""

    code: int
    exited: bool
    status: str
    error: str | None


class Sink(Protocol):
    """Somebody who is told what a program writes as it is read."""

    @property
    def full(self) -> bool:
        """Whether the program has to wait."""

    def put(self, item: Output | End | Failure) -> None:
        """Takes what it is told."""


class Listener:
    """Somebody who wants to know what a program writes."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._waiting: deque[Output | End | Failure] = deque()
        self._bytes = 0
        self._news = asyncio.Event()

    @property
    def full(self) -> bool:
        """Whether it is so far behind that the program has to wait."""
        return self._bytes > MOST_WAITING

    def put(self, item: Output | End | Failure) -> None:
        """Takes what it will be told."""
        self._waiting.append(item)
        if isinstance(item, Output):
            self._bytes += len(item.data)
        self._news.set()

    def taken(self) -> list[Output | End | Failure]:
        """What it was told, and was not asked for yet."""
        waiting = list(self._waiting)
        self._waiting.clear()
        self._bytes = 0
        return waiting

    async def items(self) -> AsyncIterator[Output | End]:
        """What the program writes, and then how it ended."""
        try:
            while True:
                while not self._waiting:
                    self._news.clear()
                    await self._news.wait()
                item = self._waiting.popleft()
                if isinstance(item, Failure):
                    raise item
                if isinstance(item, Output):
                    self._bytes -= len(item.data)
                    self._process.resume()
                yield item
                if isinstance(item, End):
                    return
        finally:
            self.close()

    def __del__(self) -> None:
        try:
            self._process.resume()
        except RuntimeError:
            pass  # There is no loop any more.

    def close(self) -> None:
        """Stops listening; the program goes on."""
        self._process.listeners.discard(self)
        self._process.resume()


@dataclass(eq=False)
class Process:
    """A program that the service started.

    Attributes:
        config: What it was started with, as the listing shows it.
        tag: The name that its starter gave it.
        terminal: Whether it has a terminal.
        stdin: Our end of its standard input.
        readers: Our ends of its outputs, by descriptor.
        out_of_time: Whether it is killed because its time was up.
    """

    config: dict[str, Any]
    tag: str | None
    terminal: bool
    stdin: int | None
    readers: dict[int, str]
    out_of_time: bool = False
    pid: int = 0
    started: float = field(default_factory=time.time)
    listeners: weakref.WeakSet[Sink] = field(default_factory=weakref.WeakSet)
    """Those who were forgotten rather than closed hold nobody up."""
    first: Listener | None = None
    """Hears everything from the beginning; whoever started the program takes it."""
    end: End | None = None
    _paused: bool = False
    _writing: asyncio.Lock = field(default_factory=asyncio.Lock)

    def output(self) -> AsyncIterator[Output | End]:
        """Everything that it writes, and then how it ended; to be asked for once, right after the start."""
        first, self.first = self.first, None
        assert first is not None
        return first.items()

    def tell(self, sink: Sink) -> None:
        """Tells somebody everything from the beginning, in place of `output`."""
        first, self.first = self.first, None
        assert first is not None
        for item in first.taken():
            sink.put(item)
        first.close()
        if self.end is None:
            self.listeners.add(sink)

    def drain(self, most: int) -> None:
        """Reads what is in the pipes now, up to that many bytes of each, for whoever cannot wait for the loop to come to it."""
        for descriptor in list(self.readers):
            for _ in range(0, most, _CHUNK):
                if not self._readable(descriptor):
                    break

    def begin(self, *, listen: bool) -> None:
        """Starts to read."""
        if listen:
            self.first = Listener(self)
            self.listeners.add(self.first)
        for descriptor in self.readers:
            os.set_blocking(descriptor, False)
        self.resume(first=True)

    def listen(self) -> Listener:
        """A new listener; it hears what is written from now on."""
        listener = Listener(self)
        if self.end is not None:
            listener.put(self.end)
        else:
            self.listeners.add(listener)
        return listener

    def resume(self, *, first: bool = False) -> None:
        """Reads on if nobody is too far behind."""
        if (self._paused or first) and not any(listener.full for listener in self.listeners):
            self._paused = False
            for descriptor in self.readers:
                asyncio.get_running_loop().add_reader(descriptor, self._readable, descriptor)

    def _pause(self) -> None:
        self._paused = True
        for descriptor in self.readers:
            asyncio.get_running_loop().remove_reader(descriptor)

    def _readable(self, descriptor: int) -> bool:
        """Reads once. Answers whether there may be more."""
        try:
            data = os.read(descriptor, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._close(descriptor)
            return False
        output = Output(self.readers[descriptor], data)
        for listener in self.listeners:
            listener.put(output)
        if any(listener.full for listener in self.listeners):
            self._pause()
        return True

    def _close(self, descriptor: int) -> None:
        if self.readers.pop(descriptor, None) is not None:
            asyncio.get_running_loop().remove_reader(descriptor)
            os.close(descriptor)

    def ended(self, code: int | None, signal: int | None) -> None:
        """It has ended; what it wrote is in the pipes by now, and they hold little."""
        for descriptor in list(self.readers):
            while self._readable(descriptor):
                pass
        if signal is None:
            self._finish(End(code or 0, True, f"exit status {code or 0}", None if not code else f"exit status {code}"))
        else:
            words = f"signal: {_describe(signal)}"
            self._finish(End(-1, False, words, words))
        # What it left running writes into the void.
        self._paused = True
        self.resume()

    def lose(self, failure: Failure) -> None:
        """Its sandbox is gone."""
        for listener in list(self.listeners):
            listener.put(failure)
        self.listeners.clear()
        for descriptor in list(self.readers):
            self._close(descriptor)
        self.close_stdin()

    def _finish(self, end: End) -> None:
        self.end = end
        for listener in list(self.listeners):
            listener.put(end)
        self.listeners.clear()
        self.close_stdin()

    async def write(self, data: bytes) -> None:
        """Writes to its standard input, as fast as it reads."""
        async with self._writing:
            rest = memoryview(data)
            while rest:
                if self.stdin is None:
                    raise Failure(Kind.INVALID, f"The process {self.pid} has no standard input", remedy="start it with `stdin`")
                try:
                    rest = rest[os.write(self.stdin, rest) :]
                except BlockingIOError:
                    await _writable(self.stdin)
                except OSError:
                    raise Failure(Kind.CONFLICT, f"The process {self.pid} does not read its standard input any more") from None

    def close_stdin(self) -> None:
        """Lets it read the end of its standard input."""
        descriptor, self.stdin = self.stdin, None
        if descriptor is not None:
            asyncio.get_running_loop().remove_writer(descriptor)
            os.close(descriptor)


def fulfil(future: asyncio.Future[None]) -> None:
    """Lets whoever waits go on."""
    if not future.done():
        future.set_result(None)


async def _writable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()
    loop.add_writer(descriptor, fulfil, ready)
    try:
        # Closing the descriptor meanwhile makes nobody ready: look again now and then.
        await asyncio.wait([ready], timeout=1)
    finally:
        loop.remove_writer(descriptor)


def _describe(signal: int) -> str:
    # As Go has them, in which E2B's agent is written.
    words = {2: "interrupt", 6: "aborted", 9: "killed", 11: "segmentation fault", 15: "terminated"}
    try:
        return words.get(signal) or signals.Signals(signal).name
    except ValueError:
        return str(signal)
