"""One instance of a function: a sandbox whose program asks for calls, one at a time, over Lambda's runtime interface."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import h11

from cloudpilot.errors import SandboxException
from cloudpilot.service.agent import settle
from cloudpilot.service.failures import Failure
from cloudpilot.service.processes import Output

if TYPE_CHECKING:
    from cloudpilot.engine.pending import Pending
    from cloudpilot.service.processes import Process
    from cloudpilot.service.sandboxes import Sandbox

PORT = 9001
"""Where a function's program finds the runtime interface."""
LARGEST_ANSWER = 6 << 20
"""Bytes of an answer, as with Lambda."""
LOG_TAIL = 4096
"""Bytes of the log that a caller gets, as with Lambda."""
_MOST_LOG = 64 << 10
_LARGEST_HEAD = 64 << 10
_CHUNK = 256 << 10
_BASE = "/2018-06-01/runtime"
_LOG_PAUSE = 0.01


@dataclass(eq=False)
class Call:
    """A call on its way.

    Attributes:
        id: Its number, as the program and the caller know it.
        payload: What the function is called with.
        deadline: When it is given up, in seconds since 1970.
        result: Whether the function failed, and what it answered.
    """

    payload: bytes
    deadline: float
    arn: str
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    result: asyncio.Future[tuple[str | None, bytes]] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def settle(self, error: str | None, answer: bytes) -> bool:
        """Ends it; the first to do so counts."""
        if self.result.done():
            return False
        self.result.set_result((error, answer))
        return True


def problem(kind: str, message: str) -> bytes:
    """What a caller is answered when the function could not."""
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()


class Instance:
    """A sandbox that serves one function, one call at a time."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.last_used = time.monotonic()
        self.over = asyncio.Event()
        self.init_error: bytes | None = None
        self._log = bytearray()
        self._reason = "without providing a reason"
        self._call: Call | None = None
        self._wanted = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def start(self, args: list[str], envs: dict[str, str]) -> None:
        """Starts the program."""
        # Before the program, which may connect at once.
        self._spawn(self._accept(*self._offer()))
        process = await self.sandbox.inside.start(args, envs=envs, cwd="/var/task")
        self._spawn(self._follow(process))

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def serve(self, call: Call, seconds: float) -> tuple[str | None, bytes, bytes]:
        """Serves a call. Answers what failed if the function did, its answer, and its log."""
        self._log.clear()
        started = time.monotonic()
        self._call = call
        self._wanted.set()
        over = asyncio.ensure_future(self.over.wait())
        try:
            waited: list[asyncio.Future[Any]] = [call.result, over]
            await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            over.cancel()
        if not call.result.done():
            if self.over.is_set():
                message = f"RequestId: {call.id} Error: Runtime exited {self._reason}"
                call.settle("Unhandled", self.init_error or problem("Runtime.ExitError", message))
            else:
                # Whatever it does now is for nobody.
                self.end()
                call.settle(
                    "Unhandled", problem("Sandbox.Timedout", f"RequestId: {call.id} Error: Task timed out after {seconds:.2f} seconds")
                )
        self._call = None
        error, answer = call.result.result()
        # What it wrote before it answered is in the pipe by now.
        await asyncio.sleep(_LOG_PAUSE if self._log or error else 0)
        self.last_used = time.monotonic()
        spent = (time.monotonic() - started) * 1000
        report = (
            f"END RequestId: {call.id}\nREPORT RequestId: {call.id}\tDuration: {spent:.2f} ms\tMemory Size: {self.sandbox.memory_mb} MB\n"
        )
        log = f"START RequestId: {call.id} Version: $LATEST\n".encode() + bytes(self._log) + report.encode()
        return error, answer, base64.b64encode(log[-LOG_TAIL:])

    def end(self) -> None:
        """Stops serving."""
        self.over.set()
        for task in self._tasks:
            task.cancel()

    async def _follow(self, process: Process) -> None:
        try:
            async for item in process.output():
                if isinstance(item, Output):
                    self._log += item.data
                    del self._log[:-_MOST_LOG]
                else:
                    self._reason = f"with error: {item.status}" if item.error else "without providing a reason"
        except Failure as failure:
            self._reason = f"with error: {failure.message}"
        self.end()

    # The runtime interface.

    def _offer(self) -> tuple[socket.socket, Pending[Any]]:
        """Offers a connection to whoever connects inside next; the port is open once the sandbox reads its next request."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        try:
            return ours, self.sandbox.inside.client.call("accept", {"port": PORT}, [theirs.fileno()], None)
        finally:
            theirs.close()

    async def _accept(self, ours: socket.socket, pending: Pending[Any]) -> None:
        while True:
            try:
                await settle(pending)
            except BaseException as error:
                ours.close()
                if isinstance(error, SandboxException):
                    return  # It has ended, which its program's follower tells.
                raise
            self._spawn(self._talk(ours))
            try:
                ours, pending = self._offer()
            except Failure:
                return

    async def _talk(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        http = h11.Connection(h11.SERVER, max_incomplete_event_size=_LARGEST_HEAD)
        try:
            while True:
                request, body = await _read(http, reader)
                if request is None:
                    return
                status, headers, answer = await self._answer(request.method.decode(), request.target.decode("latin-1"), body)
                headers = [("Content-Length", str(len(answer))), ("Content-Type", "application/json"), *headers]
                data = http.send(h11.Response(status_code=status, headers=headers)) or b""
                data += http.send(h11.Data(data=answer)) or b""
                writer.write(data + (http.send(h11.EndOfMessage()) or b""))
                await writer.drain()
                if http.our_state is h11.MUST_CLOSE:
                    return
                http.start_next_cycle()
        except (h11.ProtocolError, OSError):
            pass  # The program broke it off, or speaks no HTTP: its call ends with it.
        finally:
            writer.close()

    async def _answer(self, method: str, path: str, body: bytes | None) -> tuple[int, list[tuple[str, str]], bytes]:
        parts = path.removeprefix(_BASE).strip("/").split("/")
        if not path.startswith(_BASE):
            return 404, [], problem("InvalidPath", path)
        if method == "GET" and parts == ["invocation", "next"]:
            return await self._next()
        if method == "POST" and parts == ["init", "error"]:
            self.init_error = (body or b"{}")[:LARGEST_ANSWER]
            return 202, [], b'{"status":"OK"}'
        if method == "POST" and len(parts) == 3 and parts[0] == "invocation" and parts[2] in ("response", "error"):
            call = self._call
            if call is None or call.id != parts[1]:
                return 400, [], problem("InvalidRequestID", "This call is not under way")
            if body is None:
                message = f"Response payload size exceeded maximum allowed payload size ({LARGEST_ANSWER} bytes)."
                call.settle("Unhandled", problem("Function.ResponseSizeTooLarge", message))
                return 413, [], problem("RequestEntityTooLarge", message)
            call.settle("Unhandled" if parts[2] == "error" else None, body)
            return 202, [], b'{"status":"OK"}'
        return 404, [], problem("InvalidPath", path)

    async def _next(self) -> tuple[int, list[tuple[str, str]], bytes]:
        while self._call is None or self._call.result.done() or not self._wanted.is_set():
            await self._wanted.wait()
            if self._call is None:
                self._wanted.clear()
        self._wanted.clear()
        call = self._call
        headers = [
            ("Lambda-Runtime-Aws-Request-Id", call.id),
            ("Lambda-Runtime-Deadline-Ms", str(int(call.deadline * 1000))),
            ("Lambda-Runtime-Invoked-Function-Arn", call.arn),
            ("Lambda-Runtime-Trace-Id", f"Root=1-{int(time.time()):08x}-{call.id.replace('-', '')[:24]};Sampled=0"),
        ]
        return 200, headers, call.payload


async def _read(http: h11.Connection, reader: asyncio.StreamReader) -> tuple[h11.Request | None, bytes | None]:
    """A request with its body; no body if it is too long."""
    request: h11.Request | None = None
    body: bytearray | None = bytearray()
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            http.receive_data(await reader.read(_CHUNK))
        elif isinstance(event, h11.Request):
            request = event
        elif isinstance(event, h11.Data):
            if body is not None:
                body += event.data
                body = None if len(body) > LARGEST_ANSWER else body
        elif isinstance(event, h11.EndOfMessage):
            return request, None if body is None else bytes(body)
        else:
            with contextlib.suppress(Exception):
                http.send(h11.ConnectionClosed())
            return None, None
