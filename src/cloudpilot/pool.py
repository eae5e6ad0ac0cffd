"""`Pool` and `AsyncPool`: sandboxes that are started in advance, so that getting one takes no time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Literal, Self

from cloudpilot.async_sandbox import AsyncSandbox
from cloudpilot.core import command as core
from cloudpilot.core import session as core_session
from cloudpilot.engine import pool as engine
from cloudpilot.engine import wall
from cloudpilot.engine.pending import Driven, drive
from cloudpilot.engine.reactor import reactor
from cloudpilot.sandbox import SANDBOX_TIMEOUT, Sandbox

FILL_TIMEOUT = 60.0
"""Seconds that filling a pool may take where nothing else is said."""


async def _prepared(life: wall.Life) -> core_session.Session:
    session = core_session.Session(life.id, life, core_session.SessionOptions())
    await core.rehearse(session)
    return session


class _Pool:
    """What both have in common."""

    def __init__(
        self,
        size: int = 2,
        *,
        image: str | None = None,
        rootfs: str | os.PathLike[str] | None = None,
        volumes: Mapping[str, str] | None = None,
        memory: str | int | None = None,
        cpus: float | None = None,
        pids: int | None = None,
        network: Literal["none", "host"] = "none",
        hostname: str | None = None,
    ) -> None:
        """Begins to start `size` sandboxes that wait from then on; what was taken is replaced.

        Args:
            size: How many wait.
            image: As for `Sandbox.create`, and so are the others; all sandboxes of the pool are alike.
            rootfs: See there.
            volumes: See there.
            memory: See there.
            cpus: See there.
            pids: See there.
            network: See there.
            hostname: See there.

        Raises:
            SandboxException: They cannot be started; the message says why.
        """
        start = self._start = core_session.start_of(image, rootfs)

        def settings() -> dict[str, Any]:
            return core_session.configuration(
                start=start,
                rootfs=rootfs,
                volumes=volumes,
                memory=memory,
                cpus=cpus,
                pids=pids,
                network=network,
                name=None,
                hostname=hostname,
            )

        settings()  # What cannot be is said here rather than at the first start.
        self._settings = settings
        self._pool: engine.Pool[core_session.Session] = engine.Pool(
            lambda: wall.Life(settings()),
            _prepared,
            size,
        )

    @property
    def waiting(self) -> int:
        """How many sandboxes can be had at once."""
        return self._pool.waiting

    async def _create(
        self, timeout: float | None, metadata: Mapping[str, str] | None, envs: Mapping[str, str] | None, cwd: str | None
    ) -> core_session.Session:
        options = core_session.SessionOptions(envs, metadata, cwd, self._start)
        taken = self._pool.take()
        if taken is None:
            return await core_session.create(self._settings(), options, timeout)
        return core_session.put_to_use(taken[1], options, timeout)

    async def _wait(self, timeout: float | None) -> None:
        reactor().limit(self._pool.full, timeout, "Filling the pool")  # type: ignore[arg-type]
        await self._pool.full


class Pool(_Pool):
    """Sandboxes that wait to be used, all alike: `create` answers one in a fraction of a millisecond, or starts one if none waits.

    A sandbox that waits has run nothing but its shell, once, which did nothing. It uses memory but no CPU, and ends with its pool or
    with this process.
    """

    def create(
        self,
        *,
        timeout: float | None = SANDBOX_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
        envs: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> Sandbox:
        """Answers a sandbox that nobody has used, as `Sandbox.create` does. It no longer belongs to the pool."""
        return Sandbox(drive(self._create(timeout, metadata, envs, cwd)))

    def wait(self, timeout: float | None = FILL_TIMEOUT) -> None:
        """Waits until the pool has been full for the first time."""
        drive(self._wait(timeout))

    def close(self) -> None:
        """Ends the sandboxes that wait. Those that were taken go on."""
        drive(self._pool.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Closes it."""
        self.close()


class AsyncPool(_Pool):
    """The same for asyncio."""

    async def create(
        self,
        *,
        timeout: float | None = SANDBOX_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
        envs: Mapping[str, str] | None = None,
        cwd: str | None = None,
    ) -> AsyncSandbox:
        """Answers a sandbox that nobody has used, as `AsyncSandbox.create` does. It no longer belongs to the pool."""
        return AsyncSandbox(await Driven(self._create(timeout, metadata, envs, cwd)))

    async def wait(self, timeout: float | None = FILL_TIMEOUT) -> None:
        """Waits until the pool has been full for the first time."""
        await Driven(self._wait(timeout))

    async def close(self) -> None:
        """Ends the sandboxes that wait. Those that were taken go on."""
        await Driven(self._pool.close())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Closes it."""
        await self.close()
