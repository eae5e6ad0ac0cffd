"""Turns at something of which there is little, given out fairly: a thousand wishes of one do not hold up the only one of another."""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from collections.abc import AsyncIterator


class Turns:
    """At most so many at a time; those who wait get their turns project by project."""

    def __init__(self, most: int) -> None:
        self._free = most
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @contextlib.asynccontextmanager
    async def turn(self, project: str) -> AsyncIterator[None]:
        """Waits for a turn, which lasts as long as the context."""
        if self._free > 0:
            self._free -= 1
        else:
            await self._wait(project)
        try:
            yield
        finally:
            self._pass_on()

    async def _wait(self, project: str) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(project, deque()).append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while self._waiting:
            project, line = self._waiting.popitem(last=False)
            first = line.popleft()
            if line:
                # Behind all others that wait.
                self._waiting[project] = line
            if not first.done():
                first.set_result(None)
                return
        self._free += 1
