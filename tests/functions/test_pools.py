"""Instances and the calls that wait for them, over sandboxes that are none: what is started, shared, refused, kept, ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from stage import FakeInstance, Stage, eventually

from cloudpilot.functions import admission as admission_module
from cloudpilot.functions import pools as pools_module
from cloudpilot.functions.admission import LOW_SHARE, OVERHEAD, PROMISE_FACTOR, Admission, Host
from cloudpilot.functions.call import Call, Outcome
from cloudpilot.functions.demand import MOST_CALLS
from cloudpilot.functions.errors import FunctionError
from cloudpilot.functions.pool import MOST_INSTANCES
from cloudpilot.functions.registry import Registry
from cloudpilot.functions.turns import Turns
from cloudpilot.store.sqlite import SqliteStore

GIB = 1 << 30


@pytest.fixture
def staged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    monkeypatch.setattr(pools_module, "_SWEEP_PAUSE", 0.02)
    monkeypatch.setattr(admission_module, "_READ_AGE", 0.0)

    def run(test: Callable[[Stage], Awaitable[None]], budget: int | None = None) -> None:
        async def main() -> None:
            stage = Stage(tmp_path, monkeypatch, budget=budget)
            try:
                await test(stage)
            finally:
                stage.close()
            assert stage.alive() == []

        asyncio.run(main())

    return run


async def slow(_instance: FakeInstance, call: Call) -> Outcome:
    await asyncio.sleep(0.05)
    return Outcome(None, call.payload, seconds=0.05)


def test_calls_one_after_another_share_an_instance(staged: Callable[..., None]) -> None:
    async def test(stage: Stage) -> None:
        function = stage.function()
        for _ in range(20):
            assert (await stage.pools.invoke(function, b"1")).answer == b"1"
        assert [each.served for each in stage.instances] == [20]

    staged(test)


def test_a_crowd_is_served_by_a_limited_number(staged: Callable[..., None]) -> None:
    async def test(stage: Stage) -> None:
        stage.serving = slow
        outcomes = await stage.outcomes(stage.function(), 100)
        assert sorted(int(each.answer) for each in outcomes if isinstance(each, Outcome)) == list(range(100))
        assert 1 < len(stage.instances) <= MOST_INSTANCES

    staged(test)


def test_quick_calls_need_few_instances(staged: Callable[..., None]) -> None:
    async def test(stage: Stage) -> None:
        function = stage.function()
        await stage.pools.invoke(function, b"1")
        stage.pools.prepare(function).start_seconds = 60.0
        for _ in range(20):
            await stage.outcomes(function, 20)
        assert len(stage.instances) <= pools_module.STARTS_AT_ONCE

    staged(test)


def test_an_instance_may_serve_several_calls(staged: Callable[..., None]) -> None:
    async def test(stage: Stage) -> None:
        stage.serving, stage.capacity = slow, 5
        await stage.outcomes(stage.function(calls_per_instance=5), 40)
        assert len(stage.instances) <= 8
        assert all(each.busy == 0 for each in stage.instances)

    staged(test)


def test_reserved_concurrency_refuses_and_others_go_on(staged: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(stage: Stage) -> None:
        monkeypatch.setattr(Registry, "reserved", lambda _self, _project, name: 10 if name == "f" else None)
        stage.serving = slow
        function, other = stage.function(), stage.function("other", "another")
        order: list[str] = []

        async def noted(name: str, calls: Awaitable[object]) -> object:
            result = await calls
            order.append(name)
            return result

        crowd = asyncio.ensure_future(noted("crowd", stage.outcomes(function, 1000)))
        await asyncio.sleep(0)
        single = await noted("single", stage.pools.invoke(other, b"7"))
        assert isinstance(single, Outcome)
        results = await crowd
        assert isinstance(results, list)
        refused = [each for each in results if isinstance(each, FunctionError)]
        assert len(refused) == 990
        assert {(each.kind, each.reason) for each in refused} == {
            ("TooManyRequestsException", "ReservedFunctionConcurrentInvocationLimitExceeded")
        }
        assert len([each for each in stage.instances if each.function.name == "f"]) <= 10
        assert len(await stage.outcomes(function, 10)) == 10

    staged(test)


def test_a_project_has_a_limit(staged: Callable[..., None]) -> None:
    async def test(stage: Stage) -> None:
        stage.serving = slow
        results = await stage.outcomes(stage.function(), MOST_CALLS + 5)
        refused = [each for each in results if isinstance(each, FunctionError)]
        assert [each.reason for each in refused] == ["ConcurrentInvocationLimitExceeded"] * 5

    staged(test)


def test_a_caller_who_goes_leaves_nothing(staged: Callable[..., None]) -> None:
    async def test(stage: Stage) -> None:
        stage.serving = lambda *_: asyncio.sleep(3600)  # type: ignore[assignment,return-value]
        function = stage.function()
        calls = [asyncio.ensure_future(stage.pools.invoke(function, b"1")) for _ in range(30)]
        await eventually(lambda: sum(each.at_once for each in stage.instances) == MOST_INSTANCES)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await eventually(lambda: stage.alive() == [])
        assert stage.pools.figures() == {"instances": 0, "idle": 0, "waiting": 0, "under_way": 0}
        stage.serving = slow
        assert isinstance(await stage.pools.invoke(function, b"1"), Outcome)

    staged(test)


def test_a_change_ends_what_waits_and_lets_calls_finish(staged: Callable[..., None]) -> None:
    async def test(stage: Stage) -> None:
        stage.serving = slow
        function = stage.function()
        await stage.pools.invoke(function, b"1")
        under_way = asyncio.ensure_future(stage.pools.invoke(function, b"2"))
        await asyncio.sleep(0.01)
        changed = stage.registry.update(function, None, description="changed")
        assert (await under_way).answer == b"2"
        await eventually(lambda: stage.alive() == [])
        await stage.pools.invoke(changed, b"3")
        assert [each.function.revision for each in stage.alive()] == [changed.revision]

    staged(test)


def test_old_instances_get_no_more_calls(staged: Callable[..., None]) -> None:
    async def test(stage: Stage) -> None:
        stage.serving = slow
        function = stage.function()
        await stage.pools.invoke(function, b"1")
        pool = stage.pools.prepare(function)
        [first] = pool.instances
        under_way = asyncio.ensure_future(stage.pools.invoke(function, b"2"))
        await asyncio.sleep(0)
        pool.instances[first] -= 13 * 3600  # type: ignore[index]
        assert (await under_way).answer == b"2"
        await stage.pools.invoke(function, b"3")
        assert [each.served for each in stage.instances] == [2, 1]
        assert first not in stage.alive()

    staged(test)


def test_provisioned_instances_are_there_and_stay(staged: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(stage: Stage) -> None:
        wanted = {"$LATEST": 3}
        monkeypatch.setattr(Registry, "provisioned", lambda *_: wanted)
        function = stage.function()
        await eventually(lambda: len(stage.alive()) == 3)
        for each in stage.instances:
            each.last_used -= 1e6
        await asyncio.sleep(0.1)
        assert len(stage.alive()) == 3
        stage.instances[0].over = True
        await eventually(lambda: len(stage.instances) == 4 and len(stage.alive()) == 3)
        wanted.clear()
        stage.registry.changed(function.project, function.name)
        for each in stage.instances:
            each.last_used -= 1e6
        await eventually(lambda: stage.alive() == [])

    staged(test)


def test_a_start_that_fails_is_told_to_all_who_wait(staged: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(stage: Stage) -> None:
        from cloudpilot.hosting.failures import Failure, Kind

        async def refuse(*_arguments: object, **_more: object) -> None:
            raise Failure(Kind.LIMIT, "The project has enough")

        monkeypatch.setattr(stage, "create_for", refuse)
        results = await stage.outcomes(stage.function(), 20)
        assert {each.kind for each in results if isinstance(each, FunctionError)} == {"TooManyRequestsException"}
        assert stage.pools.figures()["waiting"] == 0

    staged(test)


def test_idle_instances_end_and_come_back_as_the_gaps_say(staged: Callable[..., None]) -> None:
    async def test(stage: Stage) -> None:
        function = stage.function()
        await stage.pools.invoke(function, b"1")
        demand = stage.pools.prepare(function).demand
        for _ in range(20):
            demand.history.add(3600.0)
        assert demand.last_end is not None
        demand.changed = True
        stage.instances[0].last_used -= pools_module.LINGER + 1
        await eventually(lambda: stage.alive() == [])
        demand.last_end -= 3500
        await eventually(lambda: len(stage.alive()) == 1)
        demand.last_end -= 3600
        stage.instances[1].last_used -= pools_module.LINGER + 1
        await eventually(lambda: stage.alive() == [])
        stage.pools._demands.save()
        assert stage.store.get("function-gaps/default/f") is not None
        stage.registry.remove(function.project, function.name)
        assert stage.store.get("function-gaps/default/f") is None

    staged(test)


def test_what_was_learned_outlives_the_service(staged: Callable[..., None], tmp_path: Path) -> None:
    async def first(stage: Stage) -> None:
        function = stage.function()
        await stage.pools.invoke(function, b"1")
        demand = stage.pools.prepare(function).demand
        for _ in range(20):
            demand.history.add(3600.0)
        demand.changed = True

    staged(first)
    store = SqliteStore(str(tmp_path))
    entry = store.get("function-gaps/default/f")
    assert entry is not None
    store.transact({entry.key: {**entry.value, "last": time.time() - 3550}})
    store.close()

    async def second(stage: Stage) -> None:
        # Its next call is near, and nobody had to ask.
        await eventually(lambda: len(stage.alive()) == 1)

    staged(second)


def test_memory_is_for_those_who_are_called(staged: Callable[..., None]) -> None:
    async def test(stage: Stage) -> None:
        functions = [stage.function(f"f{number}", memory_mb=256) for number in range(8)]
        for function in functions:
            await stage.pools.invoke(function, b"1")
            await eventually(lambda: stage.instances[-1].memory_bytes > 0)
        # What waited longest made room, and what was promised was no obstacle.
        assert 3 <= len(stage.alive()) < 8
        assert stage.instances[-1] in stage.alive()
        assert stage.instances[0] not in stage.alive()
        stage.serving = lambda *_: asyncio.sleep(3600)  # type: ignore[assignment,return-value]
        for each in stage.instances:
            each.serving = stage.serving
        calls = [asyncio.ensure_future(stage.pools.invoke(function, b"1")) for function in functions]
        done, pending = await asyncio.wait(calls, timeout=1.0)
        assert len(pending) >= 3
        errors = [each.exception() for each in done]
        assert errors
        assert all(isinstance(each, FunctionError) and "no memory" in each.message for each in errors)
        busy = [each for each in stage.alive() if each.at_once]
        # The host gets into trouble: what serves a call is left alone.
        stage.host = Host(64 * GIB, GIB)
        await asyncio.sleep(0.3)
        assert [each for each in stage.alive() if each.at_once] == busy
        for call in pending:
            call.cancel()

    staged(test, budget=256 << 20)


def test_pressure_on_the_host_ends_what_waits(staged: Callable[..., None]) -> None:
    async def test(stage: Stage) -> None:
        for number in range(4):
            await stage.pools.invoke(stage.function(f"f{number}"), b"1")
        assert len(stage.alive()) == 4
        stage.host = Host(GIB, int(GIB * LOW_SHARE) - (90 << 20))
        await eventually(lambda: len(stage.alive()) < 4)
        stage.host = Host(GIB, GIB, stalled=50.0)
        await eventually(lambda: stage.alive() == [])
        with pytest.raises(FunctionError, match="wait for memory"):
            await stage.pools.invoke(stage.function("late"), b"1")

    staged(test)


def test_promises_have_a_limit() -> None:
    admission = Admission(GIB, lambda: Host(64 * GIB, 64 * GIB))
    for number in range(PROMISE_FACTOR):
        assert admission.refusal("f", GIB) is None
        admission.started(number, "f", GIB)
        admission.measured(number, "f", 1 << 20)
    assert "promised" in str(admission.refusal("f", GIB))
    assert admission.used() == PROMISE_FACTOR * ((1 << 20) + OVERHEAD)
    admission.ended(0)
    assert admission.refusal("f", GIB) is None


def test_turns_are_shared_by_project() -> None:
    async def main() -> None:
        turns = Turns(1)
        order: list[str] = []

        async def one(project: str) -> None:
            async with turns.turn(project):
                order.append(project)
                await asyncio.sleep(0)

        greedy = [asyncio.ensure_future(one("greedy")) for _ in range(50)]
        await asyncio.sleep(0)
        greedy[5].cancel()
        modest = asyncio.ensure_future(one("modest"))
        started = time.monotonic()
        await asyncio.gather(*greedy, modest, return_exceptions=True)
        assert order.index("modest") <= 3
        assert len(order) == 50
        assert time.monotonic() - started < 90
        async with turns.turn("again"):
            pass

    asyncio.run(main())
