"""How long instances are kept: the policy alone, with gaps that are made up."""

from __future__ import annotations

import json
import random

import pytest

from cloudpilot.functions.keep_alive import BIN, BINS, FIXED, LEAST_GAPS, MOST_GAPS, History, Windows


def history_of(*gaps: float) -> History:
    history = History()
    for gap in gaps:
        history.add(gap)
    return history


def test_without_a_history_a_fixed_time_counts() -> None:
    assert History().windows() == Windows(0.0, FIXED, "fixed")
    assert history_of(*[30.0] * (LEAST_GAPS - 1)).windows().basis == "fixed"
    assert History(fixed=60.0).windows().keep_alive == 60.0


def test_what_is_called_all_the_time_is_kept_for_a_minute_or_so() -> None:
    windows = history_of(*[0.2] * 100).windows()
    assert windows.basis == "histogram"
    assert windows.prewarm == 0
    assert BIN < windows.keep_alive < 2 * BIN


def test_what_is_called_by_the_hour_ends_and_comes_back_before_its_call() -> None:
    windows = history_of(*[3600.0 + offset for offset in range(-50, 50, 5)]).windows()
    assert windows.basis == "histogram"
    assert 40 * 60 < windows.prewarm < 3550
    assert 3650 < windows.end < 75 * 60
    assert windows.warm_at(3600)
    assert not windows.warm_at(600)
    assert windows.idle_time(3600) < 15 * 60
    assert windows.idle_time(60) == 0
    assert windows.idle_time(1e9) == windows.keep_alive


def test_one_gap_in_a_hundred_may_be_missed_but_not_more() -> None:
    generator = random.Random(7)
    gaps = [generator.expovariate(1 / 300) for _ in range(2000)]
    windows = history_of(*gaps).windows()
    assert windows.basis == "histogram"
    assert sum(not windows.warm_at(gap) for gap in gaps) <= 0.01 * len(gaps)


def test_calls_at_any_time_say_nothing() -> None:
    flat = history_of(*[(number + 0.5) * BIN for number in range(BINS)])
    assert flat.windows() == Windows(0.0, FIXED, "fixed")


def test_long_gaps_are_forecast_only_if_they_are_alike() -> None:
    day = 24 * 3600.0
    daily = history_of(day, day + 600, day - 600, day).windows()
    assert daily.basis == "forecast"
    assert daily.warm_at(day)
    assert not daily.warm_at(day / 2)
    assert history_of(5 * 3600.0, day, 3 * day, day).windows() == Windows(0.0, FIXED, "fixed")
    assert history_of(day, day).windows().basis == "fixed"
    # A minority of long gaps is what the last percentile leaves out.
    assert history_of(*[30.0] * 50, day, day, day, day).windows().basis == "histogram"


def test_old_habits_are_forgotten() -> None:
    history = history_of(*[3 * 3600.0] * MOST_GAPS)
    before = history.windows()
    for _ in range(9 * MOST_GAPS):
        history.add(10.0)
    assert history.gaps <= MOST_GAPS
    assert history.windows().end < before.end


@pytest.mark.parametrize("gap", [-1.0, float("nan"), float("inf")])
def test_a_clock_that_was_set_is_no_habit(gap: float) -> None:
    assert history_of(gap).gaps == 0


def test_it_outlives_the_service() -> None:
    day = 24 * 3600.0
    for history in (History(), history_of(*[0.2, 90.0, 1e4] * 20), history_of(day, day, day)):
        value = json.loads(json.dumps(history.as_value()))
        again = History.from_value(value)
        assert (again.windows(), again.gaps) == (history.windows(), history.gaps)
        assert again.as_value() == value
