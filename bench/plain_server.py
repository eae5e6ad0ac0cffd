"""The simplest servers of the same make as the service: `bare server` answers what it was sent, `subprocess` starts a program for it."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import TYPE_CHECKING, Any

import uvicorn

from bench.services import SPAWNING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

_HANDLER = "import json, sys; json.dump(json.load(sys.stdin), sys.stdout)"
_MOST = 10
"""Programs at a time, as many as the service has instances of a function."""


class Server:
    """Answers requests with what they bring, or, by GET, with what came last."""

    def __init__(self, *, spawns: bool) -> None:
        self._spawns = spawns
        self._last = b""
        self._places: asyncio.Semaphore | None = None

    async def __call__(self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]) -> None:
        """Serves one request."""
        if scope["type"] != "http":
            return
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        answer = self._last if scope["method"] == "GET" else bytes(body)
        if self._spawns:
            answer = await self._run(answer)
        elif scope["method"] == "PUT":
            self._last, answer = answer, b""
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    async def _run(self, text: bytes) -> bytes:
        if self._places is None:
            self._places = asyncio.Semaphore(_MOST)
        async with self._places:
            pipe = asyncio.subprocess.PIPE
            process = await asyncio.create_subprocess_exec("/usr/bin/python3", "-c", _HANDLER, stdin=pipe, stdout=pipe)
            answer, _ = await process.communicate(text)
        return answer


def main() -> None:
    """Serves until it is told to end; prints its port first."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    app = Server(spawns=sys.argv[1] == SPAWNING)
    config = uvicorn.Config(app, http="httptools", loop="uvloop", lifespan="off", log_config=None, access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
