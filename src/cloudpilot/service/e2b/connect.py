"""The Connect protocol as far as E2B's client speaks it: single messages and streams, in JSON."""

from __future__ import annotations

import json
import logging
import struct
from collections.abc import AsyncIterator
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from cloudpilot.hosting import failures
from cloudpilot.hosting.failures import Failure, Kind
from cloudpilot.service.http import Stream, body, reply
from cloudpilot.service.settings import LARGEST_BODY

_END = 2
_COMPRESSED = 1
_HEADER = struct.Struct(">BI")
_CODES = {Kind.NO_SPACE: "resource_exhausted", Kind.TOO_LARGE: "resource_exhausted"}
_STATUSES = {Kind.CONFLICT: 400, Kind.NO_SPACE: 429, Kind.TOO_LARGE: 429}

log = logging.getLogger("cloudpilot.e2b")


def error_of(failure: Failure) -> dict[str, Any]:
    """A failure as the protocol has it."""
    return {"code": _CODES.get(failure.kind, failure.kind.code), "message": failure.sentence()}


def error_reply(failure: Failure) -> Response:
    """A failure as the answer to a single message."""
    return reply(error_of(failure), _STATUSES.get(failure.kind, failure.kind.status))


def failure_of(error: Exception) -> Failure:
    """Any exception as a failure; our own faults are logged."""
    failure = failures.of(error)
    if failure is None:
        log.error("fault", exc_info=error)
        failure = Failure(Kind.INTERNAL, "The service failed; its log says why")
    return failure


def deadline_of(request: Request) -> float | None:
    """Seconds that the client gives the request."""
    text = request.headers.get("connect-timeout-ms", "")
    return int(text) / 1000 if text.isascii() and text.isdigit() else None


async def message(request: Request) -> dict[str, Any]:
    """The one message of a request that is not a stream."""
    return _decode(await body(request))


def _decode(text: bytes | bytearray) -> dict[str, Any]:
    try:
        value = json.loads(text or b"{}")
    except ValueError as error:
        raise Failure(Kind.INVALID, f"The message is not JSON: {error}") from None
    except RecursionError:
        raise Failure(Kind.INVALID, "The message is nested too deeply") from None
    if not isinstance(value, dict):
        raise Failure(Kind.INVALID, "The message is not a JSON object")
    return value


async def messages(request: Request) -> AsyncIterator[dict[str, Any]]:
    """The messages of a stream that the client sends."""
    buffer = bytearray()
    async for chunk in request.stream():
        buffer += chunk
        while len(buffer) >= _HEADER.size:
            flags, length = _HEADER.unpack_from(buffer)
            if length > LARGEST_BODY:
                raise Failure(Kind.TOO_LARGE, f"A message is longer than {LARGEST_BODY} bytes", remedy="send shorter ones")
            if flags & _COMPRESSED:
                raise Failure(Kind.NOT_SUPPORTED, "Compressed messages are not supported", remedy="send them as they are")
            if len(buffer) < _HEADER.size + length:
                break
            text = bytes(buffer[_HEADER.size : _HEADER.size + length])
            del buffer[: _HEADER.size + length]
            if flags & _END:
                return
            yield _decode(text)
    if buffer:
        raise Failure(Kind.INVALID, "The stream ends within a message")


async def first_message(request: Request) -> dict[str, Any]:
    """The one message that opens a stream of the service's."""
    async for result in messages(request):
        return result
    raise Failure(Kind.INVALID, "The request has no message")


def frame(text: bytes, flags: int = 0) -> bytes:
    """A message in a stream."""
    return _HEADER.pack(flags, len(text)) + text


def encode(value: Any) -> bytes:
    """A value as a message in a stream."""
    return frame(json.dumps(value, separators=(",", ":")).encode())


def stream(chunks: AsyncIterator[bytes]) -> Response:
    """A stream of messages, with its end."""

    async def whole() -> AsyncIterator[bytes]:
        try:
            async for chunk in chunks:
                yield chunk
        except Exception as error:
            yield frame(json.dumps({"error": error_of(failure_of(error))}).encode(), _END)
        else:
            yield frame(b"{}", _END)
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]

    return Stream(whole(), media_type="application/connect+json")


def refused_stream(failure: Failure) -> Response:
    """A stream that ends before it begins."""
    text = json.dumps({"error": error_of(failure)}).encode()
    return Response(frame(text, _END), media_type="application/connect+json")
