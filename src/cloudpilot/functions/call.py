"""A call on its way, and what became of it."""

from __future__ import annotations

import asyncio
import base64
import json
import uuid
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

LARGEST_ANSWER = 6 << 20
"""Bytes of an answer that is given in one piece, as with Lambda."""
LARGEST_STREAM = 200 << 20
"""Bytes of an answer that is streamed, as with Lambda."""
LOG_TAIL = 4096
"""Bytes of the log that a caller gets, as with Lambda."""
MOST_AHEAD = 1 << 20
"""Bytes that a program may be ahead of whoever reads its stream; then it waits."""


def problem(kind: str, message: str) -> bytes:
    """What a caller is answered when the function could not."""
    return json.dumps({"errorType": kind, "errorMessage": message}).encode()


class Outcome:
    """What became of a call.

    Attributes:
        error: What failed, if the function did.
        answer: What it answered, or how it failed.
        seconds: How long it took.
        call_id: The call's number, if it became one.
    """

    __slots__ = ("_log", "answer", "call_id", "error", "seconds")

    def __init__(self, error: str | None, answer: bytes, log: bytes = b"", seconds: float = 0.0) -> None:
        self.error = error
        self.answer = answer
        self.seconds = seconds
        self.call_id = ""
        self._log = log

    @property
    def log_tail(self) -> bytes:
        """The end of what it wrote, in base64."""
        return base64.b64encode(self._log[-LOG_TAIL:])


class Stream:
    """An answer that comes in pieces."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._ahead = 0
        self._over = False
        self.resume: Callable[[], None] | None = None
        """Lets the program go on; set while it waits."""

    @property
    def full(self) -> bool:
        """Whether the program is to wait."""
        return self._ahead > MOST_AHEAD

    def put(self, piece: bytes) -> None:
        """Takes a piece."""
        self._pieces.append(piece)
        self._ahead += len(piece)
        self._news.set()

    def finish(self) -> None:
        """There is no more."""
        self._over = True
        self._news.set()

    async def pieces(self) -> AsyncIterator[bytes]:
        """What has come, until there is no more."""
        while True:
            while self._pieces:
                piece = self._pieces.popleft()
                self._ahead -= len(piece)
                if self.resume is not None and not self.full:
                    resume, self.resume = self.resume, None
                    resume()
                yield piece
            if self._over:
                return
            self._news.clear()
            await self._news.wait()


class Call:
    """A call on its way.

    Attributes:
        id: Its number, as the program and the caller know it.
        payload: What the function is called with.
        arn: The function's name, as the program is told it.
        seconds: What it may take.
        client_context: What the caller's client tells the program of itself, if it does.
        stream: Where pieces of the answer go, if the caller wants pieces.
        result: What failed if the function did, and what it answered; both are empty where the answer went into the stream.
    """

    __slots__ = ("arn", "client_context", "id", "payload", "result", "seconds", "stream")

    def __init__(
        self, payload: bytes, arn: str, seconds: float, *, client_context: str | None = None, stream: Stream | None = None
    ) -> None:
        self.id = str(uuid.uuid4())
        self.payload = payload
        self.arn = arn
        self.seconds = seconds
        self.client_context = client_context
        self.stream = stream
        self.result: asyncio.Future[tuple[str | None, bytes]] = asyncio.get_running_loop().create_future()

    def settle(self, error: str | None, answer: bytes) -> bool:
        """Ends it; the first to do so counts."""
        if self.result.done():
            return False
        self.result.set_result((error, answer))
        return True
