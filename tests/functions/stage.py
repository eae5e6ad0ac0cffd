"""What functions stand on, without a service: a store in a directory, sandboxes that are none, instances that do as they are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cloudpilot.functions import pools as pools_module
from cloudpilot.functions.admission import Admission, Host
from cloudpilot.functions.call import Call, Outcome
from cloudpilot.functions.code import Codes
from cloudpilot.functions.errors import FunctionError
from cloudpilot.functions.pools import Pools
from cloudpilot.functions.records import Function
from cloudpilot.functions.registry import Registry
from cloudpilot.images.store import Images
from cloudpilot.store.sqlite import SqliteStore

Serve = Callable[["FakeInstance", Call], Awaitable[Outcome]]


async def answer(instance: FakeInstance, call: Call) -> Outcome:
    """Answers with what it was called with."""
    return Outcome(None, call.payload)


@dataclass(eq=False)
class FakeInstance:
    """An instance that does as it is told."""

    sandbox: Any
    function: Function
    serving: Serve
    start_seconds: float = 0.0
    capacity: int = 1
    busy: int = 0
    over: bool = False
    last_used: float = field(default_factory=time.monotonic)
    memory_bytes: int = 0
    served: int = 0
    at_once: int = 0

    async def start(self, launch: Any) -> None:
        await asyncio.sleep(self.start_seconds)

    async def serve(self, call: Call) -> Outcome:
        self.at_once += 1
        assert self.at_once <= self.capacity
        try:
            return await self.serving(self, call)
        finally:
            self.at_once -= 1
            self.served += 1

    def end(self) -> None:
        self.over = True


class Stage:
    """Pools over instances that are none."""

    def __init__(self, directory: Path, monkeypatch: pytest.MonkeyPatch, *, budget: int | None = None) -> None:
        self.store = SqliteStore(str(directory))
        self.registry = Registry(self.store, Codes(str(directory / "code")), Images(str(directory / "images")))
        self.serving: Serve = answer
        self.start_seconds = 0.0
        self.capacity = 1
        self.killed: list[Any] = []
        self.instances: list[FakeInstance] = []
        self.host = Host(64 << 30, 32 << 30)
        self.used_mb = 40
        monkeypatch.setattr(pools_module.instances, "make", self._make)
        self.pools = Pools(self.registry, self, Admission(budget, lambda: self.host))  # type: ignore[arg-type]

    async def create_for(self, project: str, template: Any, *, timeout: int) -> Any:
        async def stats(*_arguments: Any, **_more: Any) -> dict[str, int]:
            return {"memory_bytes": self.used_mb << 20}

        return SimpleNamespace(project=project, memory_mb=template.memory_mb, inside=SimpleNamespace(call=stats))

    def kill(self, sandbox: Any) -> None:
        self.killed.append(sandbox)

    def _make(self, sandbox: Any, function: Function, on_log: Any) -> FakeInstance:
        instance = FakeInstance(sandbox, function, self.serving, self.start_seconds, self.capacity)
        self.instances.append(instance)
        return instance

    def function(self, name: str = "f", project: str = "default", **more: Any) -> Function:
        """A function that is in the store."""
        given = {"runtime": "python3.11", "handler": "a.b", "role": "r", "digest": "0" * 64, "code_size": 1, **more}
        return self.registry.create(Function(name=name, project=project, **given))

    def alive(self) -> list[FakeInstance]:
        return [each for each in self.instances if each.sandbox not in self.killed]

    async def outcomes(self, function: Function, count: int) -> list[Outcome | FunctionError]:
        """Calls a function several times at once."""
        return await asyncio.gather(*(self.pools.invoke(function, b"%d" % number) for number in range(count)), return_exceptions=True)  # type: ignore[return-value]

    def close(self) -> None:
        self.pools.close()
        self.store.close()


async def eventually(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.01)
