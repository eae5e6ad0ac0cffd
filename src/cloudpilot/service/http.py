"""What all APIs of the service share about HTTP: bodies read with a limit and checked by type, keys found in headers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from cloudpilot.hosting.access import Caller
from cloudpilot.hosting.failures import Failure, Kind
from cloudpilot.service.settings import LARGEST_BODY

M = TypeVar("M", bound=BaseModel)


async def body(request: Request, most: int = LARGEST_BODY) -> bytes:
    """The request's body, unless it is too long."""
    text = bytearray()
    async for chunk in request.stream():
        text += chunk
        if len(text) > most:
            raise Failure(Kind.TOO_LARGE, f"The body is longer than {most} bytes", remedy="send less at a time")
    return bytes(text)


def parse(model: type[M], text: bytes) -> M:
    """A body as its type. What is wrong is told with the name of the field."""
    try:
        return model.model_validate_json(text or b"{}")
    except ValidationError as error:
        raise invalid(error) from None


def parse_query(model: type[M], query: Mapping[str, str]) -> M:
    """A query string as its type."""
    try:
        return model.model_validate(dict(query))
    except ValidationError as error:
        raise invalid(error) from None


def invalid(error: ValidationError) -> Failure:
    """The first thing that is wrong."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"]) or None
    if first["type"] == "json_invalid":
        return Failure(Kind.INVALID, f"The body is not JSON: {first['msg'].removeprefix('Invalid JSON: ')}", remedy="send a JSON object")
    return Failure(Kind.INVALID, first["msg"], field=place, remedy="see /openapi.json for what it takes")


def reply(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON."""
    return Response(json.dumps(value, separators=(",", ":")), status, headers, "application/json")


class BrokenOffError(Exception):
    """An answer cannot be completed after its status has been sent: the connection ends, so that nobody takes it for whole."""


class Stream(StreamingResponse):
    """An answer that comes in pieces, whose source is closed at once when the client hangs up."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends it."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            # Left to the collector it would hold up a program until some later time.
            await self.body_iterator.aclose()  # type: ignore[attr-defined]


def key_of(request: Request) -> str | None:
    """The API key of a request."""
    key = request.headers.get("x-api-key")
    if key is None:
        scheme, _, rest = request.headers.get("authorization", "").partition(" ")
        key = rest.strip() if scheme.lower() == "bearer" else None
    return key


def caller_of(request: Request, role: str = "read-only") -> Caller:
    """Who sent a request, if they have at least this role."""
    caller: Caller = request.app.state.access.caller(key_of(request))
    request.state.caller = caller
    caller.need(role)
    return caller
