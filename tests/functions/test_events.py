"""Calls that nobody waits for, over instances that are none."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from stage import FakeInstance, Stage, eventually

from cloudpilot.functions import events as events_module
from cloudpilot.functions.call import Call, Outcome, problem
from cloudpilot.functions.errors import FunctionError
from cloudpilot.functions.events import MOST_DELIVERIES, MOST_HOPS, PREFIX, Events
from cloudpilot.functions.records import EventConfig, Function, arn_of
from cloudpilot.functions.registry import Registry


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events_module, "RETRY_PAUSES", (0.01, 0.02))
    monkeypatch.setattr(events_module, "BUSY_PAUSES", (0.01, 0.05))


def configured(monkeypatch: pytest.MonkeyPatch, **config: Any) -> None:
    def found(_registry: Registry, function: Function, _qualifier: str | None = None) -> EventConfig:
        return EventConfig(**config) if function.name == "f" else EventConfig()

    monkeypatch.setattr(Registry, "event_config", found)


def left(stage: Stage) -> int:
    return stage.store.count(PREFIX)


def test_many_wait_few_run_all_are_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        stage = Stage(tmp_path, monkeypatch)
        seen: set[bytes] = set()
        most = 0

        async def serve(_instance: FakeInstance, call: Call) -> Outcome:
            nonlocal most
            most = max(most, len(asyncio.all_tasks()))
            await asyncio.sleep(0)
            seen.add(call.payload)
            return Outcome(None, b"1")

        stage.serving = serve
        function = stage.function()
        events = Events(stage.registry, stage.pools)
        before = len(asyncio.all_tasks())
        numbers = {events.accept(function, b"%d" % number, "key") for number in range(500)}
        assert len(numbers) == left(stage) == 500
        await eventually(lambda: left(stage) == 0)
        assert len(seen) == 500
        # A delivery has its own task, and maybe one that starts an instance for it.
        assert most <= before + 2 * MOST_DELIVERIES
        assert events.waiting() == 0
        events.close()
        stage.close()

    asyncio.run(main())


def test_failures_are_tried_again_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        stage = Stage(tmp_path, monkeypatch)
        told: dict[str, list[Any]] = {"f": [], "lost": [], "dead": []}

        async def serve(instance: FakeInstance, call: Call) -> Outcome:
            told[instance.function.name].append(json.loads(call.payload))
            return Outcome("Unhandled", problem("ValueError", "as asked")) if instance.function.name == "f" else Outcome(None, b"null")

        stage.serving = serve
        configured(monkeypatch, retries=1, on_failure=arn_of("lost"))
        function = stage.function(dead_letters=arn_of("dead"))
        stage.function("lost")
        stage.function("dead")
        events = Events(stage.registry, stage.pools)
        number = events.accept(function, b'{"a":1}', "key")
        await eventually(lambda: left(stage) == 0)
        assert told["f"] == [{"a": 1}] * 2
        assert told["dead"] == [{"a": 1}]
        [record] = told["lost"]
        assert record["requestContext"]["requestId"] == number
        assert record["requestContext"]["condition"] == "RetriesExhausted"
        assert record["requestContext"]["approximateInvokeCount"] == 2
        assert record["requestPayload"] == {"a": 1}
        assert record["responsePayload"]["errorType"] == "ValueError"
        events.close()
        stage.close()

    asyncio.run(main())


def test_success_is_told_and_circles_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        stage = Stage(tmp_path, monkeypatch)
        conditions: list[str] = []

        async def serve(_instance: FakeInstance, call: Call) -> Outcome:
            conditions.append(json.loads(call.payload).get("requestContext", {}).get("condition", "first"))
            return Outcome(None, b"{}")

        stage.serving = serve
        configured(monkeypatch, on_success=arn_of("f", "$LATEST"))
        function = stage.function()
        events = Events(stage.registry, stage.pools)
        events.accept(function, b"{}", "key")
        await eventually(lambda: left(stage) == 0)
        assert conditions == ["first", *["Success"] * MOST_HOPS]
        events.close()
        stage.close()

    asyncio.run(main())


def test_no_place_is_no_failure_but_age_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        stage = Stage(tmp_path, monkeypatch)
        configured(monkeypatch, retries=0, most_age=60)
        function = stage.function()
        events = Events(stage.registry, stage.pools)
        refusals = 5

        async def invoke(*_arguments: Any, **_more: Any) -> Outcome:
            nonlocal refusals
            if refusals:
                refusals -= 1
                raise FunctionError("TooManyRequestsException", "Rate Exceeded.")
            return Outcome(None, b"1")

        monkeypatch.setattr(stage.pools, "invoke", invoke)
        events.accept(function, b"1", "key")
        await eventually(lambda: left(stage) == 0)
        assert refusals == 0
        refusals = 1_000_000
        events.accept(function, b"2", "key")
        await eventually(lambda: refusals < 999_999)
        monkeypatch.setattr(events_module.time, "time", lambda now=events_module.time.time: now() + 100)
        await eventually(lambda: left(stage) == 0)
        events.close()
        stage.close()

    asyncio.run(main())


def test_what_was_accepted_is_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def first() -> None:
        stage = Stage(tmp_path, monkeypatch)
        stage.serving = lambda *_: asyncio.sleep(3600)  # type: ignore[assignment,return-value]
        function = stage.function()
        events = Events(stage.registry, stage.pools)
        for number in range(250):
            events.accept(function, b"%d" % number, "key")
        await asyncio.sleep(0.05)
        # Nothing is said to the store: it ends as by a kill.
        events._closed = True
        stage.close()

    async def second() -> None:
        stage = Stage(tmp_path, monkeypatch)
        seen: list[bytes] = []

        async def serve(_instance: FakeInstance, call: Call) -> Outcome:
            seen.append(call.payload)
            return Outcome(None, b"1")

        stage.serving = serve
        events = Events(stage.registry, stage.pools)
        await eventually(lambda: left(stage) == 0)
        assert sorted(seen) == sorted(b"%d" % number for number in range(250))
        events.close()
        stage.close()

    asyncio.run(first())
    asyncio.run(second())


def test_a_line_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        stage = Stage(tmp_path, monkeypatch)
        monkeypatch.setattr(events_module, "MOST_EVENTS", 20)
        stage.serving = lambda *_: asyncio.sleep(3600)  # type: ignore[assignment,return-value]
        function, other = stage.function(), stage.function("other")
        events = Events(stage.registry, stage.pools)
        with pytest.raises(FunctionError, match="wait already"):
            for _ in range(20 + MOST_DELIVERIES + 1):
                events.accept(function, b"1", "key")
        assert events.accept(other, b"1", "key")
        assert left(stage) == 20 + MOST_DELIVERIES + 1
        events.close()
        stage.close()

    asyncio.run(main())


def test_a_function_that_is_gone_takes_its_calls_along(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        stage = Stage(tmp_path, monkeypatch)
        function = stage.function()
        stage.registry.remove(function.project, function.name)
        events = Events(stage.registry, stage.pools)
        events.accept(function, b"1", "key")
        await eventually(lambda: left(stage) == 0)
        assert stage.instances == []
        events.close()
        stage.close()

    asyncio.run(main())
