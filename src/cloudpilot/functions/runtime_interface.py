"""Lambda's runtime interface, as the program of an instance speaks it: HTTP over a connection that leads into the sandbox.

The program is not trusted: heads, bodies and the number of its connections are limited, and one that does not read its answers is not
read from.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from typing import Protocol, cast

import httptools

from cloudpilot.functions.call import LARGEST_ANSWER, LARGEST_STREAM, Call, problem

_BASE = b"/2018-06-01/runtime/"
_NEXT = _BASE + b"invocation/next"
_INIT_ERROR = _BASE + b"init/error"
_LARGEST_HEAD = 64 << 10
"""Bytes of a request's line and headers; the trailer that tells of a failed stream must fit."""
_MODE = b"lambda-runtime-function-response-mode"
_ERROR_TYPE = b"lambda-runtime-function-error-type"
_ERROR_BODY = b"lambda-runtime-function-error-body"
_KEPT = frozenset((_MODE, _ERROR_TYPE, _ERROR_BODY, b"expect"))
_STATUS = {200: b"OK", 202: b"Accepted", 400: b"Bad Request", 404: b"Not Found", 413: b"Content Too Large"}
_ACCEPTED = b'{"status":"OK"}'
_TOO_LARGE = f"Response payload size exceeded maximum allowed payload size ({LARGEST_ANSWER} bytes)."
_TOO_LONG = f"Response stream exceeded its maximum size ({LARGEST_STREAM} bytes)."


class Calls(Protocol):
    """Who has calls for the program."""

    def ask(self, connection: Connection) -> None:
        """The program asks for its next call there."""

    def call_of(self, number: bytes) -> Call | None:
        """The call of that number, if it is under way."""

    def failed_to_start(self, error: bytes) -> None:
        """The program says that it could not get ready."""

    def connected(self, connection: Connection) -> None:
        """A connection begins."""

    def disconnected(self, connection: Connection) -> None:
        """A connection has ended."""


class Connection(asyncio.Protocol):
    """One of the program's connections."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._answers: list[bytes] = []
        self._asking = False
        self._in_head = True
        self._head_size = 0
        self._url = b""
        self._headers: dict[bytes, bytes] = {}
        self._call: Call | None = None
        self._body = bytearray()
        self._body_size = 0
        self._streams = False
        self._last = False

    # The transport's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is there."""
        # Its class says nothing: other event loops have their own.
        self._transport = cast("asyncio.Transport", transport)
        self._calls.connected(self)

    def connection_lost(self, error: Exception | None) -> None:
        """It is over."""
        self._transport = None
        self._calls.disconnected(self)

    def pause_writing(self) -> None:
        """The program does not read its answers: it is to ask nothing more."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        """It has read them."""
        if self._transport is not None:
            self._transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Something of a request, or of several."""
        if self._in_head:
            self._head_size += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self.close()  # It speaks no HTTP, or asks on while it is asking: its call ends with it.
            return
        if self._in_head and self._head_size > _LARGEST_HEAD:
            self.close()
        elif not self._asking:
            self._flush()

    def close(self) -> None:
        """Hangs up."""
        if self._transport is not None:
            self._transport.abort()

    def _flush(self) -> None:
        if self._answers and self._transport is not None:
            self._transport.write(b"".join(self._answers))
            self._answers.clear()
            if self._last:
                self._transport.close()

    # The parser's side.

    def on_message_begin(self) -> None:
        """A request begins."""
        if self._asking:
            raise ValueError("a request before the answer to the one for a call")
        self._url = b""
        self._headers = {}
        self._in_head = True

    def on_url(self, url: bytes) -> None:
        """A piece of its path."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer behind the body."""
        name = name.lower()
        if name in _KEPT:
            self._headers[name] = value

    def on_headers_complete(self) -> None:
        """Its head is complete."""
        self._in_head = False
        self._head_size = 0
        self._body = bytearray()
        self._body_size = 0
        if self._headers.get(b"expect", b"").lower() == b"100-continue":
            self._answers.append(b"HTTP/1.1 100 Continue\r\n\r\n")
            self._flush()
        self._streams = False
        self._call = None
        if self._url.endswith((b"/response", b"/error")) and self._url.startswith(_BASE + b"invocation/"):
            self._call = self._calls.call_of(self._url[len(_BASE) + 11 :].partition(b"/")[0])
            self._streams = (
                self._call is not None
                and self._call.stream is not None
                and self._headers.get(_MODE, b"").lower() == b"streaming"
                and self._url.endswith(b"/response")
            )

    def on_body(self, piece: bytes) -> None:
        """A piece of its body."""
        self._body_size += len(piece)
        if self._streams and self._call is not None and self._call.stream is not None:
            stream = self._call.stream
            if self._body_size <= LARGEST_STREAM and not self._call.result.done():
                stream.put(piece)
                if stream.full and self._transport is not None:
                    self._transport.pause_reading()
                    stream.resume = self.resume_writing  # the same is to be done
        elif self._body_size <= LARGEST_ANSWER:
            self._body += piece

    def on_message_complete(self) -> None:
        """The request is complete."""
        self._last = not self._parser.should_keep_alive()
        get = self._parser.get_method() == b"GET"
        if get and self._url == _NEXT:
            self._asking = True
            self._calls.ask(self)
        elif get or self._parser.get_method() != b"POST" or not self._url.startswith(_BASE):
            self._answer(404, problem("InvalidPath", self._url.decode("latin-1")[:200]))
        elif self._url == _INIT_ERROR:
            self._calls.failed_to_start(bytes(self._body) or b"{}")
            self._answer(202, _ACCEPTED)
        elif not self._url.endswith((b"/response", b"/error")):
            self._answer(404, problem("InvalidPath", self._url.decode("latin-1")[:200]))
        elif self._call is None:
            self._answer(400, problem("InvalidRequestID", "This call is not under way"))
        else:
            self._settle(self._call)
        self._call = None

    def _settle(self, call: Call) -> None:
        answer, status = _ACCEPTED, 202
        kind = self._headers.get(_ERROR_TYPE)
        if self._streams:
            if self._body_size > LARGEST_STREAM:
                call.settle("Unhandled", problem("Function.ResponseSizeTooLarge", _TOO_LONG))
            elif kind is not None:
                call.settle("Unhandled", _decoded(self._headers.get(_ERROR_BODY), kind))
            else:
                call.settle(None, b"")
        elif self._body_size > LARGEST_ANSWER:
            call.settle("Unhandled", problem("Function.ResponseSizeTooLarge", _TOO_LARGE))
            answer, status = problem("RequestEntityTooLarge", _TOO_LARGE), 413
        elif self._headers.get(_MODE, b"").lower() == b"streaming" and kind is not None:
            call.settle("Unhandled", _decoded(self._headers.get(_ERROR_BODY), kind))
        else:
            call.settle("Unhandled" if self._url.endswith(b"/error") else None, bytes(self._body))
        self._body = bytearray()
        self._answer(status, answer)

    def _answer(self, status: int, body: bytes) -> None:
        self._answers.append(
            b"HTTP/1.1 %d %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (status, _STATUS[status], len(body), body)
        )

    # The instance's side.

    def give(self, call: Call) -> None:
        """Answers the program that asks for a call."""
        now = time.time()
        extra = b""
        if call.client_context is not None:
            # In one line, whatever the caller wrote.
            extra = b"Lambda-Runtime-Client-Context: %b\r\n" % " ".join(call.client_context.split()).encode()
        head = (
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
            f"Lambda-Runtime-Aws-Request-Id: {call.id}\r\n"
            f"Lambda-Runtime-Deadline-Ms: {int((now + call.seconds) * 1000)}\r\n"
            f"Lambda-Runtime-Invoked-Function-Arn: {call.arn}\r\n"
            f"Lambda-Runtime-Trace-Id: Root=1-{int(now):08x}-{call.id.replace('-', '')[:24]};Sampled=0\r\n"
            f"Content-Length: {len(call.payload)}\r\n"
        )
        self._asking = False
        self._answers.append(b"%b%b\r\n%b" % (head.encode(), extra, call.payload))
        self._flush()


def _decoded(body: bytes | None, kind: bytes) -> bytes:
    """What a program says in trailers of how its stream failed."""
    try:
        return base64.b64decode(body or b"", validate=True) or problem(kind.decode("latin-1"), "The function failed while it streamed")
    except binascii.Error:
        return problem(kind.decode("latin-1"), "The function failed while it streamed")
