"""Calls."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import TYPE_CHECKING

from starlette.responses import Response

from cloudpilot.functions.errors import FunctionError
from cloudpilot.service.http import Stream, reply
from cloudpilot.service.lambda_ import event_stream
from cloudpilot.service.lambda_.checking import constraint
from cloudpilot.service.lambda_.operations import Call, route

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator

    from starlette.routing import Route

    from cloudpilot.functions.call import Outcome
    from cloudpilot.functions.records import Function

LARGEST_PAYLOAD = 6 << 20
"""Bytes that a function is called with, as with Lambda."""
LARGEST_EVENT = 1 << 20
"""Bytes of an asynchronous call, which the store keeps until it is done."""
LARGEST_CONTEXT = 3583
"""Bytes of what a client tells of itself, as with Lambda."""


def _checked(call: Call, kind: str) -> tuple[Function, str | None]:
    """The version that is called, and by what qualifier, if the request is one that it can be called with."""
    if call.request.headers.get("x-amz-log-type", "None") not in ("None", "Tail"):
        raise constraint(call.request.headers["x-amz-log-type"], "logType", "satisfy enum value set: [None, Tail]")
    most = LARGEST_EVENT if kind == "Event" else LARGEST_PAYLOAD
    if len(call.text) > most:
        raise FunctionError("RequestTooLargeException", f"Request must be smaller than {most} bytes for the {kind} operation")
    try:
        json.loads(call.text or b"{}")
    except (ValueError, RecursionError) as error:
        raise FunctionError("InvalidRequestContentException", f"Could not parse request body into json: {error}") from None
    context = call.request.headers.get("x-amz-client-context", "")
    if len(context) > LARGEST_CONTEXT:
        raise constraint(context, "clientContext", f"have length less than or equal to {LARGEST_CONTEXT}")
    try:
        base64.b64decode(context, validate=True)
    except ValueError:
        raise FunctionError("InvalidRequestContentException", "Client context must be a valid Base64-encoded JSON object.") from None
    named = call.named()
    return call.registry.pick(call.project, named.name, named.qualifier), named.qualifier


async def _invoke(call: Call) -> Response:
    kind = call.request.headers.get("x-amz-invocation-type", "RequestResponse")
    if kind not in ("RequestResponse", "Event", "DryRun"):
        raise constraint(kind, "invocationType", "satisfy enum value set: [RequestResponse, Event, DryRun]")
    function, qualifier = _checked(call, kind)
    if kind == "DryRun":
        return Response(status_code=204)
    if kind == "Event":
        number = call.state.events.accept(function, call.text or b"{}", call.caller.key_id, qualifier)
        return Response(status_code=202, headers={"x-amzn-RequestId": number})
    outcome = await call.state.pools.invoke(function, call.text or b"{}", _client_context(call), qualifier)
    headers = {"X-Amz-Executed-Version": function.version, "x-amzn-RequestId": outcome.call_id}
    if outcome.error is not None:
        headers["X-Amz-Function-Error"] = outcome.error
    if call.request.headers.get("x-amz-log-type") == "Tail":
        headers["X-Amz-Log-Result"] = outcome.log_tail.decode()
    return Response(outcome.answer, 200, headers, "application/json")


async def _invoke_with_stream(call: Call) -> Response:
    kind = call.request.headers.get("x-amz-invocation-type", "RequestResponse")
    if kind not in ("RequestResponse", "DryRun"):
        raise constraint(kind, "invocationType", "satisfy enum value set: [RequestResponse, DryRun]")
    function, qualifier = _checked(call, kind)
    if kind == "DryRun":
        return Response(status_code=204)
    headers = {"X-Amz-Executed-Version": function.version}
    tail = call.request.headers.get("x-amz-log-type") == "Tail"
    pieces = call.state.pools.stream(function, call.text or b"{}", _client_context(call), qualifier)
    # Whether it can be called at all is told by the status; all that comes later, in the stream.
    first = await anext(pieces)
    return Stream(_messages(first, pieces, tail=tail), 200, headers, event_stream.CONTENT_TYPE)


async def _messages(first: bytes | Outcome, pieces: AsyncGenerator[bytes | Outcome], *, tail: bool) -> AsyncIterator[bytes]:
    async with contextlib.aclosing(pieces):
        piece = first
        while isinstance(piece, bytes):
            for message in event_stream.pieces(piece):
                yield message
            piece = await anext(pieces)
    details = None if piece.error is None else piece.answer.decode(errors="replace")
    yield event_stream.end(piece.error, details, piece.log_tail.decode() if tail else None)


def _client_context(call: Call) -> str | None:
    """What the client tells of itself, as the function gets it."""
    text = call.request.headers.get("x-amz-client-context")
    return base64.b64decode(text).decode(errors="replace") if text else None


async def _invoke_async(call: Call) -> Response:
    function, qualifier = _checked(call, "Event")
    call.state.events.accept(function, call.text or b"{}", call.caller.key_id, qualifier)
    return reply({"Status": 202}, 202)


def routes() -> list[Route]:
    """The operations' routes."""
    return [
        route("/2015-03-31/functions/{name}/invocations", "POST", _invoke, LARGEST_PAYLOAD + 1),
        route("/2021-11-15/functions/{name}/response-streaming-invocations", "POST", _invoke_with_stream, LARGEST_PAYLOAD + 1),
        route("/2014-11-13/functions/{name}/invoke-async", "POST", _invoke_async, LARGEST_PAYLOAD + 1),
        route("/2014-11-13/functions/{name}/invoke-async/", "POST", _invoke_async, LARGEST_PAYLOAD + 1),
    ]
