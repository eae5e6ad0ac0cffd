"""Addresses of functions: `ID.lambda-url.DOMAIN`, and `/v1/function-urls/ID/` where names below the domain lead nowhere.

Whoever knows an address of the kind `NONE` may call. The others ask for a signature, or for a key of the project's.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import secrets
import string
import uuid
from typing import TYPE_CHECKING, Any

import h11
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from cloudpilot.errors import SandboxException
from cloudpilot.functions.call import Outcome
from cloudpilot.functions.errors import FunctionError
from cloudpilot.functions.records import UrlConfig
from cloudpilot.hosting.failures import Failure
from cloudpilot.service import proxy
from cloudpilot.service.http import BrokenOffError, Stream, body, key_of, reply
from cloudpilot.service.lambda_ import sigv4
from cloudpilot.service.lambda_.errors import error_reply, status_of
from cloudpilot.service.lambda_.url_format import NO_BODY, MalformedError, answer_of, event_of, prelude_of

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from starlette.types import ASGIApp, Receive, Scope, Send

    from cloudpilot.functions.http_instance import HttpInstance
    from cloudpilot.functions.records import Function
    from cloudpilot.hosting.access import Caller

LARGEST_REQUEST = 6 << 20
"""Bytes of a request's body, as with Lambda."""
_ID_LENGTH = 32
"""Characters of an address's first part: whoever knows it may call where no key is asked for, so that it must not be guessed."""
_HOST = re.compile(r"([a-z0-9]{32})\.lambda-url\.")
_PATH = re.compile(r"/v1/function-urls/([a-z0-9]{32})(/.*|)$", re.DOTALL)


def new_id() -> str:
    """The first part of a new address."""
    return "".join(secrets.choice(string.ascii_lowercase + string.digits) for _ in range(_ID_LENGTH))


def path_of(url: UrlConfig) -> str:
    """The same as a path of the service."""
    return f"/v1/function-urls/{url.id}/"


def address(request: Request, url: UrlConfig) -> str:
    """Where a function is called."""
    return f"{request.url.scheme}://{url.id}.lambda-url.{request.app.state.domain}/"


class FunctionUrls:
    """The application with addresses of functions in front of it."""

    def __init__(self, app: ASGIApp, state: Any) -> None:
        self._app = app
        self._state = state

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serves one request."""
        if scope["type"] == "http":
            host = next((value.decode("latin-1") for name, value in scope["headers"] if name == b"host"), "")
            path = scope["raw_path"].decode("latin-1")
            by_host = _HOST.match(host)
            found = by_host or _PATH.match(path)
            if found is not None:
                scope["route"] = _Route
                response = await self._serve(Request(scope, receive), found[1], path if by_host else found[2] or "/")
                if not by_host:
                    response.headers["Content-Security-Policy"] = proxy.OWN_ORIGIN
                await response(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _serve(self, request: Request, url_id: str, path: str) -> Response:
        entry = self._state.store.get(f"function-url-ids/{url_id}")
        stored = None if entry is None else self._state.store.get(entry.value["key"])
        if stored is None:
            return _refused(404, "There is no function at this address", "ResourceNotFoundException")
        url = UrlConfig.from_value(stored.value)
        if url.cors is not None and request.method == "OPTIONS" and "access-control-request-method" in request.headers:
            return Response(status_code=200, headers=_cors_headers(url, request, preflight=True))
        try:
            response = await self._answer(request, url, path)
        except ClientDisconnect:
            return Response(status_code=499)
        for name, value in _cors_headers(url, request).items():
            response.headers[name] = value
        return response

    async def _answer(self, request: Request, url: UrlConfig, path: str) -> Response:
        number = str(uuid.uuid4())
        function = self._state.registry.find(url.project, url.function)
        if function is not None and function.contract == "http":
            return await self._answer_of_server(request, url, path, number)
        try:
            content = await body(request, LARGEST_REQUEST)
        except Failure as failure:
            return _refused(413, failure.message, "RequestEntityTooLargeException")
        try:
            caller = self._caller(request, url, content)
        except (FunctionError, Failure) as error:
            return _refused(403, "Forbidden", getattr(error, "kind", None) if isinstance(error, FunctionError) else "AccessDeniedException")
        try:
            function = self._state.registry.pick(url.project, url.function, url.qualifier)
            event = event_of(request, url, path, content, visible_headers(request), number, caller)
            if url.stream:
                return await self._stream(function, event, number, url.qualifier)
            outcome = await self._state.pools.invoke(function, event, qualifier=url.qualifier)
        except FunctionError as error:
            return error_reply(error) if status_of(error) == 429 else _refused(502, "Internal Server Error", error.kind)
        return _in_one_piece(outcome, number)

    async def _stream(self, function: Function, event: bytes, number: str, qualifier: str | None) -> Response:
        """Hands the answer on as it comes. What is no stream with a head comes as one with the status 200."""
        pieces: AsyncGenerator[bytes | Outcome] = self._state.pools.stream(function, event, qualifier=qualifier)
        begin = b""
        async with contextlib.AsyncExitStack() as stack:
            await stack.enter_async_context(contextlib.aclosing(pieces))
            head: tuple[int, list[tuple[str, str]], bytes] | None = None
            async for piece in pieces:
                if not isinstance(piece, bytes):
                    return _in_one_piece(piece if piece.error is not None else Outcome(None, begin), number)
                begin += piece
                if not begin.startswith(b"{"):
                    head = 200, [("content-type", "application/octet-stream")], begin
                    break
                try:
                    head = prelude_of(begin)
                except MalformedError as error:
                    return _malformed(error, number)
                if head is not None:
                    break
            assert head is not None
            # From here on it is closed by whoever sends the answer.
            stack.pop_all()
        status, headers, body = head
        if status in NO_BODY:
            await pieces.aclose()
            response: Response = Response(status_code=status)
        else:
            response = Stream(_rest(body, pieces), status)
        response.raw_headers = [(name.encode(), value.encode()) for name, value in [*headers, ("x-amzn-requestid", number)]]
        return response

    async def _answer_of_server(self, request: Request, url: UrlConfig, path: str, number: str) -> Response:
        """Hands the request on as it is, to a function that is a server itself."""
        try:
            if url.auth != "NONE":
                # A signature is of the body, too; with a key it can be handed on as it comes.
                content = await body(request, LARGEST_REQUEST) if sigv4.is_signed(request) else b""
                self._caller(request, url, content)
                if content:
                    request._body = content
            function = self._state.registry.pick(url.project, url.function, url.qualifier)
        except (FunctionError, Failure) as error:
            return _refused(403, "Forbidden", error.kind if isinstance(error, FunctionError) else "AccessDeniedException")
        async with contextlib.AsyncExitStack() as stack:
            try:
                instance = await stack.enter_async_context(self._state.pools.borrowed(function))
                deadline = asyncio.get_running_loop().time() + function.timeout
                exchange = await self._exchange(instance)
                stack.callback(exchange.close)
                async with asyncio.timeout_at(deadline):
                    response = await exchange.run(request, path)
            except TimeoutError:
                instance.late()
                return _refused(504, f"The function did not answer within {function.timeout} s", None, number)
            except FunctionError as error:
                return error_reply(error)
            except (h11.ProtocolError, OSError, EOFError, SandboxException, Failure) as error:
                return _refused(502, f"The function's program did not answer in HTTP: {error or 'it hung up'}", None, number)
            # From here on it is closed by whoever sends the answer.
            rest = stack.pop_all()
        response.body_iterator = _rest_of_server(response.body_iterator, rest, deadline, instance)  # type: ignore[attr-defined]
        response.headers["x-request-id"] = number
        return response

    async def _exchange(self, instance: HttpInstance) -> proxy.Exchange:
        if instance.over:
            raise EOFError(f"it ended {instance.reason}")
        reader, writer = await asyncio.open_connection(sock=await instance.connect())
        return proxy.Exchange(reader, writer)

    def _caller(self, request: Request, url: UrlConfig, content: bytes) -> Caller | None:
        if url.auth == "NONE":
            return None
        caller: Caller
        if sigv4.is_signed(request) or key_of(request) is None:
            caller = sigv4.verify(request, content, self._state.access)
        else:
            caller = self._state.access.caller(key_of(request))
        caller.need("user")
        if caller.project != url.project:
            raise FunctionError("AccessDeniedException", "The function is another project's")
        return caller


class _Route:
    path = "address of a function"


def visible_headers(request: Request) -> list[tuple[str, str]]:
    """Headers of a request without keys of ours, which are not for functions."""
    raw = request.headers.raw
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in raw if not proxy.OUR_KEY.search(value)]


async def _rest(begin: bytes, pieces: AsyncGenerator[bytes | Outcome]) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(pieces):
        yield begin
        async for piece in pieces:
            if isinstance(piece, bytes):
                yield piece
            elif piece.error is not None:
                # The status has been sent: that the answer is not whole is told by breaking it off.
                raise BrokenOffError


async def _rest_of_server(
    pieces: AsyncGenerator[bytes], rest: contextlib.AsyncExitStack, deadline: float, instance: HttpInstance
) -> AsyncIterator[bytes]:
    whole = False
    async with rest, contextlib.aclosing(pieces):
        try:
            while True:
                async with asyncio.timeout_at(deadline):
                    piece = await anext(pieces, None)
                if piece is None:
                    whole = True
                    return
                yield piece
        except (TimeoutError, h11.ProtocolError, OSError) as error:
            raise BrokenOffError from error
        finally:
            # Its time was up, or the client hung up: the program may still be at it.
            if not whole:
                instance.late()


def _in_one_piece(outcome: Outcome, number: str) -> Response:
    if outcome.error is not None:
        return _refused(502, "Internal Server Error", None, number)
    try:
        answer = answer_of(outcome.answer)
    except MalformedError as error:
        return _malformed(error, number)
    response = Response(b"" if answer.status in NO_BODY else answer.body, answer.status)
    response.raw_headers = [(name.encode(), value.encode()) for name, value in answer.headers]
    if answer.status not in NO_BODY:
        response.raw_headers.append((b"content-length", str(len(answer.body)).encode()))
    response.headers["x-amzn-RequestId"] = number
    return response


def _malformed(error: MalformedError, number: str) -> Response:
    return _refused(502, f"Internal Server Error: the function's answer is malformed: {error}", None, number)


def _refused(status: int, message: str, kind: str | None, number: str | None = None) -> Response:
    headers = {**({} if kind is None else {"x-amzn-ErrorType": kind}), **({} if number is None else {"x-amzn-RequestId": number})}
    return reply({"Message": message}, status, headers)


def _cors_headers(url: UrlConfig, request: Request, *, preflight: bool = False) -> dict[str, str]:
    """What browsers are told; what is set here goes before what the function says."""
    origin = request.headers.get("origin")
    if url.cors is None or origin is None:
        return {}
    origins = url.cors.get("AllowOrigins", [])
    if "*" not in origins and origin not in origins:
        return {}
    credentials = bool(url.cors.get("AllowCredentials"))
    # A browser takes no `*` along with credentials.
    headers = {"access-control-allow-origin": "*" if "*" in origins and not credentials else origin, "vary": "Origin"}
    if credentials:
        headers["access-control-allow-credentials"] = "true"
    if url.cors.get("ExposeHeaders"):
        headers["access-control-expose-headers"] = ",".join(url.cors["ExposeHeaders"])
    if preflight:
        headers["access-control-allow-methods"] = ",".join(url.cors.get("AllowMethods", []))
        headers["access-control-allow-headers"] = ",".join(url.cors.get("AllowHeaders", []))
        if "MaxAge" in url.cors:
            headers["access-control-max-age"] = str(url.cors["MaxAge"])
    return headers
