"""Ports of sandboxes, reached through the service: as `PORT-SANDBOX.DOMAIN`, or under `/v1/sandboxes/SANDBOX/ports/PORT/`.

Requests are taken apart and put together again, so that one connection of a client may lead to many sandboxes. A WebSocket's connection
becomes the sandbox's own once its request has been looked at.
"""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, cast

import h11
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from cloudpilot.errors import NotFoundException
from cloudpilot.hosting.failures import Failure
from cloudpilot.service.http import Stream, reply

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from cloudpilot.hosting.sandboxes import Sandboxes

ENVD_PORT = 49983
"""The port of E2B's agent, whose part the service plays itself."""
LONGEST_HEAD = 64 << 10
_CHUNK = 256 << 10
_OF_THE_CONNECTION = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"proxy-authorization")
)
OUR_KEY = re.compile(rb"e2b_[0-9a-f]{40}")
_KEY_LINE = re.compile(rb"(?im)^(?:x-api-key|authorization):[^\r\n]*e2b_[0-9a-f]{40}[^\r\n]*\r\n")
OWN_ORIGIN = "sandbox allow-scripts allow-forms allow-popups allow-downloads"
"""What a sandbox answers under a path of ours is no page of ours: it must not read what is typed into one."""
_HOST = re.compile(r"(\d{1,5})-([a-z2-7]{12})(?:\.|:|$)")
_PATH = re.compile(r"/v1/sandboxes/([a-z2-7]{12})/ports/(\d{1,5})(/.*|)$", re.DOTALL)


def target_of(host: str, path: str) -> tuple[str, int, str] | None:
    """Sandbox, port and path that a request is for, if it is for a port of a sandbox."""
    found = _HOST.match(host)
    if found and int(found[1]) != ENVD_PORT:
        return found[2], int(found[1]), path
    found = _PATH.match(path)
    return (found[1], int(found[2]), found[3] or "/") if found else None


async def connect(sandboxes: Sandboxes, sandbox_id: str, port: int) -> socket.socket:
    """A connection to a port of a sandbox."""
    agent = sandboxes.get(sandbox_id).inside
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setblocking(False)
    try:
        await agent.call("connect", {"port": port}, [theirs.fileno()])
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return ours


def refusal(error: Exception, sandbox_id: str, port: int) -> tuple[int, dict[str, Any]]:
    """Status and answer where there is no connection. E2B's clients know these words."""
    answer: dict[str, Any] = {"sandboxId": sandbox_id, "port": port, "code": 502}
    if isinstance(error, NotFoundException):
        return 502, {**answer, "message": "The sandbox is running but port is not open"}
    if isinstance(error, Failure):
        return 502, {**answer, "message": "The sandbox was not found"}
    return 502, {**answer, "message": f"The sandbox cannot be reached: {error}"}


class Ports:
    """The application with ports of sandboxes in front of it."""

    def __init__(self, app: ASGIApp, state: Any) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] == "http":
            host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
            target = target_of(host, scope["raw_path"].decode("latin-1"))
            if target is not None:
                scope["route"] = _Route
                response = await self._forward(Request(scope, receive), *target)
                if not _HOST.match(host):
                    response.headers["Content-Security-Policy"] = OWN_ORIGIN
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _forward(self, request: Request, sandbox_id: str, port: int, path: str) -> Response:
        try:
            connection = await connect(self._state.sandboxes, sandbox_id, port)
        except Exception as error:
            status, answer = refusal(error, sandbox_id, port)
            return reply(answer, status)
        reader, writer = await asyncio.open_connection(sock=connection)
        exchange = Exchange(reader, writer)
        try:
            return await exchange.run(request, path)
        except ClientDisconnect:
            exchange.close()
            return Response(status_code=499)
        except (h11.ProtocolError, OSError, EOFError) as error:
            exchange.close()
            message = f"The program on port {port} did not answer in HTTP: {error or 'it hung up'}"
            return reply({"sandboxId": sandbox_id, "port": port, "code": 502, "message": message}, 502)
        except BaseException:
            exchange.close()
            raise


class _Route:
    path = "port of a sandbox"


class Exchange:
    """One request to a program inside, and its answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._http = h11.Connection(h11.CLIENT, max_incomplete_event_size=LONGEST_HEAD)
        self._sending: asyncio.Task[None] | None = None

    def close(self) -> None:
        """Hangs up."""
        if self._sending is not None:
            self._sending.cancel()
        self._writer.close()

    async def run(self, request: Request, path: str) -> Response:
        """Sends the request; answers once the head of the answer is there."""
        headers = [
            (name, value)
            for name, value in request.headers.raw
            # Keys of ours are not for the programs inside.
            if name not in _OF_THE_CONNECTION and name != b"x-forwarded-for" and not OUR_KEY.search(value)
        ]
        if request.client:
            headers.append((b"x-forwarded-for", request.client.host.encode()))
        if "content-length" not in request.headers and "transfer-encoding" in request.headers:
            headers.append((b"transfer-encoding", b"chunked"))
        headers.append((b"connection", b"close"))
        query = request.scope["query_string"]
        target = path.encode("latin-1") + (b"?" + query if query else b"")
        self._write(h11.Request(method=request.method, target=target, headers=headers))
        self._sending = asyncio.ensure_future(self._send_body(request))
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                break
            if isinstance(event, h11.ConnectionClosed):
                raise EOFError  # noqa: TRY004 -- it hung up
        response = Stream(self._body(), event.status_code)
        response.raw_headers = [(name, value) for name, value in event.headers.raw_items() if name.lower() not in _OF_THE_CONNECTION]
        return response

    def _write(self, event: Any) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)

    async def _send_body(self, request: Request) -> None:
        try:
            async for chunk in request.stream():
                if chunk:
                    self._write(h11.Data(data=chunk))
                    await self._writer.drain()
            self._write(h11.EndOfMessage())
            await self._writer.drain()
        except (OSError, h11.ProtocolError):
            pass  # The program answers without having read everything, or has gone: its answer tells.
        except ClientDisconnect:
            self._writer.close()

    async def _next(self) -> Any:
        while (event := self._http.next_event()) is h11.NEED_DATA:
            self._http.receive_data(await self._reader.read(_CHUNK))
        return event

    async def _body(self) -> AsyncIterator[bytes]:
        try:
            while isinstance(event := await self._next(), h11.Data):
                yield bytes(event.data)
        finally:
            self.close()


class Tunnel(asyncio.Protocol):
    """A WebSocket's connection: the sandbox's own from its first byte on. The server makes one where a client asks for an upgrade."""

    state: Any = None
    """What the application holds; set before the server starts."""

    def __init__(self, config: Any, server_state: Any, app_state: Any) -> None:
        self._connections: set[Any] = server_state.connections
        self._transport: asyncio.Transport | None = None
        self._inside: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._early = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The server hands its connection over."""
        # Its class says nothing: other event loops have their own.
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        """From the client; first its request."""
        if self._inside is not None:
            self._inside.write(data)
            return
        self._early += data
        if self._task is None:
            self._task = asyncio.ensure_future(self._open(bytes(data)))
        elif len(self._early) > LONGEST_HEAD:
            self.shutdown()

    async def _open(self, head: bytes) -> None:
        line, _, rest = head.partition(b"\r\n")
        method, path, version = line.split(b" ", 2)
        found = re.search(rb"(?im)^host: *(.*?)\r$", rest)
        bare, mark, query = path.decode("latin-1").partition("?")
        target = target_of(found[1].decode("latin-1") if found else "", bare)
        if target is None:
            self._refuse(404, b'{"code":404,"message":"There is no WebSocket here"}')
            return
        sandbox_id, port, inner = target
        try:
            connection = await connect(self.state.sandboxes, sandbox_id, port)
        except Exception as error:
            import json

            status, answer = refusal(error, sandbox_id, port)
            self._refuse(status, json.dumps(answer).encode())
            return
        loop = asyncio.get_running_loop()
        assert self._transport is not None
        inside, _ = await loop.create_connection(lambda: _Inside(self._transport), sock=connection)  # type: ignore[arg-type]
        first = b" ".join((method, (inner + mark + query).encode("latin-1"), version)) + b"\r\n"
        inside.write(first + _KEY_LINE.sub(b"", rest) + bytes(self._early[len(head) :]))
        self._early.clear()
        self._inside = inside
        if self._transport.is_closing():
            inside.close()

    def _refuse(self, status: int, body: bytes) -> None:
        if self._transport is not None:
            head = (
                f"HTTP/1.1 {status} Refused\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            self._transport.write(head.encode() + body)
            self._transport.close()

    def pause_writing(self) -> None:
        """The client reads more slowly than the program writes."""
        if self._inside is not None:
            self._inside.pause_reading()

    def resume_writing(self) -> None:
        """It has caught up."""
        if self._inside is not None:
            self._inside.resume_reading()

    def eof_received(self) -> None:
        """The client sends no more; a WebSocket is over then."""

    def connection_lost(self, error: Exception | None) -> None:
        """The client has gone."""
        self._connections.discard(self)
        if self._inside is not None:
            self._inside.close()

    def shutdown(self) -> None:
        """The service ends."""
        if self._transport is not None:
            self._transport.close()


class _Inside(asyncio.Protocol):
    """The sandbox's side of a tunnel."""

    def __init__(self, client: asyncio.Transport) -> None:
        self._client = client

    def data_received(self, data: bytes) -> None:
        self._client.write(data)

    def connection_lost(self, error: Exception | None) -> None:
        self._client.close()

    def pause_writing(self) -> None:
        self._client.pause_reading()

    def resume_writing(self) -> None:
        self._client.resume_reading()
