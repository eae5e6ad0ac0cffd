"""One instance of a function that is an HTTP server: the contract of Cloud Run and Knative.

The program listens on `0.0.0.0:$PORT` within `START_PATIENCE`, serves as many requests at a time as the function declares, and is told by
SIGTERM that it has `FAREWELL_PATIENCE` left.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import time
from typing import TYPE_CHECKING

import h11

from cloudpilot.errors import NotFoundException, SandboxException
from cloudpilot.functions.call import LARGEST_ANSWER, Call, Outcome, problem
from cloudpilot.functions.instance import CallLog
from cloudpilot.hosting.failures import Failure

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudpilot.functions.launch import Launch
    from cloudpilot.functions.records import Function
    from cloudpilot.hosting.processes import Process
    from cloudpilot.hosting.sandboxes import Sandbox

PORT = 8080
"""Where the program is to listen."""
START_PATIENCE = 240.0
"""Seconds that it may take until it does, as with Cloud Run."""
FAREWELL_PATIENCE = 10.0
"""Seconds between SIGTERM and the end, as with Cloud Run."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 0.1
_LARGEST_HEAD = 64 << 10
_CHUNK = 256 << 10


class HttpInstance:
    """A sandbox whose program is an HTTP server."""

    def __init__(self, sandbox: Sandbox, function: Function, on_log: Callable[[bytes], None]) -> None:
        self.sandbox = sandbox
        self.capacity = max(1, function.calls_per_instance)
        self.busy = 0
        self.over = False
        self.last_used = time.monotonic()
        self.memory_bytes = 0
        self.reason = "the program has ended"
        self._function = function
        self._log = CallLog(on_log, self._ended)
        self._process: Process | None = None
        self._gone = asyncio.Event()

    async def start(self, launch: Launch) -> None:
        """Starts the program; returns when it listens, has ended, or has taken too long."""
        self._process = await self.sandbox.inside.start(launch.args, envs=launch.env, cwd=launch.workdir, user=launch.user)
        self._process.tell(self._log)
        pause = _FIRST_PAUSE
        deadline = time.monotonic() + START_PATIENCE
        while not self.over:
            try:
                (await self.connect()).close()
                return
            except NotFoundException:
                pass
            except (SandboxException, Failure) as error:
                self._ended(f"with error: {error}")
                return
            if time.monotonic() > deadline:
                self._ended(f"because it did not listen on port {PORT} within {START_PATIENCE:g} s")
                return
            await asyncio.sleep(pause)
            pause = min(_LONGEST_PAUSE, pause * 1.5)

    async def connect(self) -> socket.socket:
        """A connection to the program."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        ours.setblocking(False)
        try:
            await self.sandbox.inside.call("connect", {"port": PORT}, [theirs.fileno()])
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        return ours

    def late(self) -> None:
        """A request was not answered in time. Where it is the only one, what the program does now is for nobody."""
        if self.capacity == 1:
            self.end()

    async def serve(self, call: Call) -> Outcome:
        """Serves a call that comes as an event: as a POST of it to `/`."""
        self._log.begin(call, self._function.version)
        started = time.monotonic()
        error: str | None = None
        try:
            if self.over:
                raise ConnectionError
            async with asyncio.timeout(call.seconds):
                status, answer = await self._post(call)
            error = None if status < 400 else "Unhandled"
            if error is not None:
                text = answer.decode(errors="replace")
                answer = json.dumps({"errorType": "Function.HttpError", "errorMessage": f"HTTP status {status}", "body": text}).encode()
        except TimeoutError:
            self.late()
            message = f"RequestId: {call.id} Error: Task timed out after {call.seconds:.2f} seconds"
            error, answer = "Unhandled", problem("Sandbox.Timedout", message)
        except (OSError, h11.ProtocolError, SandboxException, Failure):
            message = f"RequestId: {call.id} Error: Runtime exited {self.reason}" if self.over else "The program did not answer in HTTP"
            error, answer = "Unhandled", problem("Runtime.ExitError", message)
        seconds = time.monotonic() - started
        if call.stream is not None:
            if error is None:
                call.stream.put(answer)
            call.stream.finish()
        lines = f"END RequestId: {call.id}\nREPORT RequestId: {call.id}\tDuration: {seconds * 1000:.2f} ms\n"
        return Outcome(error, answer, self._log.finish(lines), seconds)

    async def _post(self, call: Call) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection(sock=await self.connect())
        http = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGEST_HEAD)
        try:
            headers = [
                ("Host", f"{self._function.name}.local"),
                ("Content-Type", "application/json"),
                ("Content-Length", str(len(call.payload))),
                ("Connection", "close"),
                ("X-Request-Id", call.id),
            ]
            writer.write(http.send(h11.Request(method="POST", target="/", headers=headers)) or b"")
            writer.write((http.send(h11.Data(data=call.payload)) or b"") + (http.send(h11.EndOfMessage()) or b""))
            await writer.drain()
            status, body = 0, bytearray()
            while True:
                event = http.next_event()
                if event is h11.NEED_DATA:
                    http.receive_data(await reader.read(_CHUNK))
                elif isinstance(event, h11.Response):
                    status = event.status_code
                elif isinstance(event, h11.Data):
                    body += event.data
                    if len(body) > LARGEST_ANSWER:
                        message = f"Response payload size exceeded maximum allowed payload size ({LARGEST_ANSWER} bytes)."
                        return 502, message.encode()
                elif isinstance(event, h11.EndOfMessage):
                    return status, bytes(body)
                elif isinstance(event, h11.ConnectionClosed):
                    raise ConnectionError("the program hung up")
        finally:
            writer.close()

    def _ended(self, reason: str) -> None:
        self.reason = reason
        self._gone.set()
        self.end()

    def end(self) -> None:
        """Stops serving."""
        self.over = True

    async def farewell(self) -> None:
        """Lets the program end in good order, if it does so in time."""
        if self._process is None or self._gone.is_set():
            return
        try:
            await self.sandbox.inside.signal(self._process.pid, signal.SIGTERM)
            async with asyncio.timeout(FAREWELL_PATIENCE):
                await self._gone.wait()
        except (TimeoutError, SandboxException, Failure):
            pass  # It does not, or is gone: the sandbox ends it.
