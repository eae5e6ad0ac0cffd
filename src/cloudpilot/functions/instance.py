"""One instance of a function: a sandbox whose program asks for calls, one at a time, over Lambda's runtime interface."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from typing import TYPE_CHECKING, Any, Protocol

from cloudpilot.errors import SandboxException
from cloudpilot.functions.call import Call, Outcome, problem
from cloudpilot.functions.runtime_interface import Connection
from cloudpilot.hosting.failures import Failure
from cloudpilot.hosting.processes import End, Output

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudpilot.engine.pending import Pending
    from cloudpilot.functions.launch import Launch
    from cloudpilot.functions.records import Function
    from cloudpilot.hosting.processes import Process
    from cloudpilot.hosting.sandboxes import Sandbox

PORT = 9001
"""Where a function's program finds the runtime interface."""
INIT_PATIENCE = 10.0
"""Seconds that a program has to get ready before the time of its first call begins to run, as with Lambda."""
MOST_CONNECTIONS = 16
"""Connections of a program to the runtime interface; runtimes use one or two."""
MOST_LOG = 64 << 10
"""Newest bytes of a call's log that are kept for its caller."""
MOST_LOG_OF_CALL = 10 << 20
"""Bytes of a call's log that go into the function's log. A program that prints a gigabyte is heard, but not written down."""
_MOST_DRAINED = 1 << 20
"""Bytes that are read at a call's end without letting anybody else go on: what a pipe holds."""

log = logging.getLogger("cloudpilot.functions")


class Instance(Protocol):
    """Something that serves calls of one function.

    Attributes:
        sandbox: Where its program runs.
        capacity: Calls that it serves at the same time.
        busy: Calls that it serves now.
        over: Whether it serves no more.
        last_used: When it was given back last, by the monotonic clock.
        memory_bytes: What it was measured to use; 0 if it never was.
    """

    sandbox: Sandbox
    capacity: int
    busy: int
    over: bool
    last_used: float
    memory_bytes: int

    async def start(self, launch: Launch) -> None:
        """Starts the program; returns when it is ready, has failed, or has taken `INIT_PATIENCE`."""

    async def serve(self, call: Call) -> Outcome:
        """Serves a call."""

    def end(self) -> None:
        """Stops serving."""

    async def farewell(self) -> None:
        """Lets the program end in good order before its sandbox is."""


class CallLog:
    """What a program writes: the end of it is kept for the caller, all of it goes on, up to a limit."""

    def __init__(self, on_log: Callable[[bytes], None], on_end: Callable[[str], None]) -> None:
        self._on_log = on_log
        self._on_end = on_end
        self._tail = bytearray()
        self._left = MOST_LOG_OF_CALL
        self._start = b""

    full = False

    def begin(self, call: Call, version: str) -> None:
        """What comes now belongs to that call."""
        self._tail.clear()
        self._left = MOST_LOG_OF_CALL
        self._start = f"START RequestId: {call.id} Version: {version}\n".encode()

    def put(self, item: Output | End | Failure) -> None:
        """Takes what the program writes, and how it ends."""
        if isinstance(item, End):
            self._on_end(f"with error: {item.status}" if item.error else "without providing a reason")
        elif isinstance(item, Failure):
            self._on_end(f"with error: {item.message}")
        else:
            self._tail += item.data
            del self._tail[:-MOST_LOG]
            if self._left > 0:
                self._write(item.data[: self._left])
                self._left -= len(item.data)
                if self._left <= 0:
                    self._write(b"\n[the rest of this call's log is left out]\n")

    def finish(self, lines: str) -> bytes:
        """The call is over. Answers its whole log, if it is short, else its end."""
        text = lines.encode()
        start = f"{self._start.decode()}" if self._start else ""
        self._write(text)
        return start.encode() + bytes(self._tail) + text

    def _write(self, data: bytes) -> None:
        try:
            self._on_log(self._start + data if self._start else data)
        except OSError as error:
            log.warning("the log of a function cannot be written", extra={"error": str(error)})
        self._start = b""


class EventInstance:
    """A sandbox that serves one function, one call at a time."""

    capacity = 1

    def __init__(self, sandbox: Sandbox, function: Function, on_log: Callable[[bytes], None]) -> None:
        self.sandbox = sandbox
        self.busy = 0
        self.over = False
        self.last_used = self._born = time.monotonic()
        self.memory_bytes = 0
        self._function = function
        self._loop = asyncio.get_running_loop()
        self._log = CallLog(on_log, self._ended)
        self._process: Process | None = None
        self._reason = "without providing a reason"
        self._init_error: bytes | None = None
        self._init_seconds: float | None = None
        self._told_init = False
        self._call: Call | None = None
        self._given = False
        self._timer: asyncio.TimerHandle | None = None
        self._started = 0.0
        self._asking: list[Connection] = []
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._offered = False
        self._ready = asyncio.Event()

    async def start(self, launch: Launch) -> None:
        """Starts the program."""
        # Before the program, which may connect at once.
        self._offer()
        self._process = await self.sandbox.inside.start(launch.args, envs=launch.env, cwd=launch.workdir, user=launch.user)
        self._process.tell(self._log)
        try:
            async with asyncio.timeout(INIT_PATIENCE):
                await self._ready.wait()
        except TimeoutError:
            pass  # Its first call's time runs, then.

    # Calls.

    async def serve(self, call: Call) -> Outcome:
        """Serves a call."""
        self._call = call
        self._given = False
        self._log.begin(call, self._function.version)
        self._started = time.monotonic()
        if self.over:
            self._fail(call)
        elif self._asking:
            self._give(self._asking.pop(0))
        else:
            self._timer = self._loop.call_later(call.seconds, self._out_of_time, call)
        try:
            error, answer = await call.result
        finally:
            self._call = None
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        seconds = time.monotonic() - self._started
        if self._process is not None:
            self._process.drain(_MOST_DRAINED)
        if call.stream is not None:
            if answer and error is None:
                call.stream.put(answer)
            call.stream.finish()
        return Outcome(error, answer, self._log.finish(self._report(call, seconds)), seconds)

    def _give(self, connection: Connection) -> None:
        """Hands the call to the program; its time begins."""
        call = self._call
        assert call is not None
        self._given = True
        self._started = time.monotonic()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(call.seconds, self._out_of_time, call)
        connection.give(call)

    def _report(self, call: Call, seconds: float) -> str:
        spent = seconds * 1000
        init = ""
        if self._init_seconds is not None and not self._told_init:
            self._told_init = True
            init = f"\tInit Duration: {self._init_seconds * 1000:.2f} ms"
        used = f"\tMax Memory Used: {self.memory_bytes >> 20} MB" if self.memory_bytes else ""
        return (
            f"END RequestId: {call.id}\nREPORT RequestId: {call.id}\tDuration: {spent:.2f} ms\tBilled Duration: {int(spent) + 1} ms\t"
            f"Memory Size: {self.sandbox.memory_mb} MB{used}{init}\n"
        )

    def _out_of_time(self, call: Call) -> None:
        message = f"RequestId: {call.id} Error: Task timed out after {call.seconds:.2f} seconds"
        call.settle("Unhandled", problem("Sandbox.Timedout", message))
        # Whatever it does now is for nobody.
        self.end()

    def _fail(self, call: Call) -> None:
        message = f"RequestId: {call.id} Error: Runtime exited {self._reason}"
        call.settle("Unhandled", self._init_error or problem("Runtime.ExitError", message))

    # What the program does.

    def ask(self, connection: Connection) -> None:
        """The program asks for its next call there."""
        if self._init_seconds is None:
            self._init_seconds = time.monotonic() - self._born
            self._ready.set()
        if self._call is not None and not self._given and not self._call.result.done():
            self._give(connection)
        else:
            self._asking.append(connection)

    def call_of(self, number: bytes) -> Call | None:
        """The call of that number, if it is under way."""
        call = self._call
        return call if call is not None and self._given and not call.result.done() and call.id.encode() == number else None

    def failed_to_start(self, error: bytes) -> None:
        """The program says that it could not get ready."""
        self._init_error = error

    def connected(self, connection: Connection) -> None:
        """A connection begins."""
        self._connections.add(connection)
        if self.over:
            connection.close()

    def disconnected(self, connection: Connection) -> None:
        """A connection has ended."""
        self._connections.discard(connection)
        if connection in self._asking:
            self._asking.remove(connection)
        if not self.over and not self._offered:
            self._offer()

    def _ended(self, reason: str) -> None:
        """The program has ended."""
        self._reason = reason
        self.end()

    def end(self) -> None:
        """Stops serving."""
        if self.over:
            return
        self.over = True
        self._ready.set()
        if self._call is not None:
            self._fail(self._call)
        for connection in list(self._connections):
            connection.close()
        for task in self._tasks:
            task.cancel()

    async def farewell(self) -> None:
        """Its program asks for calls, and none comes: it is in good order."""

    # Its connections.

    def _offer(self) -> None:
        """Offers a connection to whoever connects inside next; the port is open once the sandbox reads its next request."""
        if self.over or len(self._connections) >= MOST_CONNECTIONS:
            self._offered = False
            return
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        try:
            pending = self.sandbox.inside.client.call("accept", {"port": PORT}, [theirs.fileno()], None)
        except Failure:
            ours.close()  # It has ended, which its program tells.
            return
        finally:
            theirs.close()
        self._offered = True
        pending.then(lambda: self._taken_soon(ours, pending))

    def _taken_soon(self, ours: socket.socket, pending: Pending[Any]) -> None:
        # In the engine's thread.
        try:
            self._loop.call_soon_threadsafe(self._taken, ours, pending)
        except RuntimeError:
            ours.close()  # The service has ended before the sandbox.

    def _taken(self, ours: socket.socket, pending: Pending[Any]) -> None:
        self._offered = False
        try:
            pending.result()
        except SandboxException:
            ours.close()
            return
        if self.over:
            ours.close()
            return
        task = self._loop.create_task(self._talk(ours))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _talk(self, ours: socket.socket) -> None:
        try:
            await self._loop.create_unix_connection(lambda: Connection(self), sock=ours)
        except BaseException:
            ours.close()
            raise
        self._offer()


def make(sandbox: Sandbox, function: Function, on_log: Callable[[bytes], None]) -> Instance:
    """The instance that the function's contract asks for."""
    if function.contract == "http":
        from cloudpilot.functions.http_instance import HttpInstance

        return HttpInstance(sandbox, function, on_log)
    return EventInstance(sandbox, function, on_log)
