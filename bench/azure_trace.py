"""Traces of calls in the schema of the Azure Functions trace of 2019: read from a directory, or made up along what was published of it."""

from __future__ import annotations

import csv
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

MINUTES = 1440
_HEAD = ("HashOwner", "HashApp", "HashFunction")
_PERIODS = (1, 5, 10, 15, 30, 60, 120, 360, 720, 1440)
_TIMERS = 0.16
"""Share of functions that a timer calls, as published."""
_RATE = 1.60, 1.77
"""Mean and deviation of the decimal logarithm of calls a day: 45 % of functions then get one an hour at most, 81 % one a minute."""
_REGULAR, _MODERATE = 0.2, 0.6
"""Shares of the other functions whose gaps vary hardly, and less than those of calls at random: up to a fifth, and up to six tenths."""
_LEAST_DENSE = 0.5
"""Calls a minute above which minutes are drawn rather than gaps."""


@dataclass
class Traced:
    """A function's calls.

    Attributes:
        minutes: The minutes in which it was called, in order.
        calls: All its calls.
        memory_mb: Memory of its application.
        seconds: How long a call takes.
    """

    minutes: list[int]
    calls: int
    memory_mb: float
    seconds: float


def read(directory: Path) -> tuple[list[Traced], int]:
    """Every function of a trace, and the trace's length in minutes."""
    memory = {
        (row["HashOwner"], row["HashApp"]): float(row["AverageAllocatedMb"])
        for file in sorted(directory.glob("app_memory_percentiles*.csv"))
        for row in _rows(file)
    }
    seconds = {
        tuple(row[name] for name in _HEAD): float(row["Average"]) / 1000
        for file in sorted(directory.glob("function_durations_percentiles*.csv"))
        for row in _rows(file)
    }
    functions: dict[tuple[str, ...], Traced] = {}
    days = sorted(directory.glob("invocations_per_function_md*.csv"))
    for day, file in enumerate(days):
        with file.open(newline="") as text:
            reader = csv.reader(text)
            first = next(reader).index("1")
            for row in reader:
                key = tuple(row[: len(_HEAD)])
                traced = functions.get(key)
                if traced is None:
                    traced = functions[key] = Traced([], 0, memory.get(key[:2], 170.0), seconds.get(key, 0.6))
                for minute, count in enumerate(row[first:]):
                    if count != "0":
                        traced.minutes.append(day * MINUTES + minute)
                        traced.calls += int(count)
    return [each for each in functions.values() if each.calls], len(days) * MINUTES


def _rows(file: Path) -> Iterator[dict[str, str]]:
    with file.open(newline="") as text:
        yield from csv.DictReader(text)


def make(directory: Path, functions: int, days: int, seed: int) -> None:
    """Writes a trace."""
    generator = random.Random(seed)
    names = [(f"owner{number // 3}", f"app{number // 2}", f"function{number}") for number in range(functions)]
    habits = [_habit(generator, days * MINUTES) for _ in names]
    for day in range(days):
        with (directory / f"invocations_per_function_md.anon.d{day + 1:02}.csv").open("w", newline="") as text:
            writer = csv.writer(text)
            writer.writerow([*_HEAD, "Trigger", *range(1, MINUTES + 1)])
            for name, (trigger, counts) in zip(names, habits, strict=True):
                today = [counts.get(day * MINUTES + minute, 0) for minute in range(MINUTES)]
                if any(today):
                    writer.writerow([*name, trigger, *today])
    with (directory / "function_durations_percentiles.anon.d01.csv").open("w", newline="") as text:
        shares = (0, 1, 25, 50, 75, 99, 100)
        writer = csv.writer(text)
        writer.writerow([*_HEAD, "Average", "Count", "Minimum", "Maximum", *(f"percentile_Average_{share}" for share in shares)])
        for name in names:
            average = round(1000 * generator.lognormvariate(math.log(0.6), 1.5), 1)
            writer.writerow([*name, average, 100, average, average, *[average] * len(shares)])
    with (directory / "app_memory_percentiles.anon.d01.csv").open("w", newline="") as text:
        shares = (1, 5, 25, 50, 75, 95, 99, 100)
        writer = csv.writer(text)
        writer.writerow(["HashOwner", "HashApp", "SampleCount", "AverageAllocatedMb", *(f"AverageAllocatedMb_pct{s}" for s in shares)])
        for owner, app in dict.fromkeys(name[:2] for name in names):
            average = round(generator.lognormvariate(math.log(170), 0.6), 1)
            writer.writerow([owner, app, 100, average, *[average] * len(shares)])


def _habit(generator: random.Random, minutes: int) -> tuple[str, dict[int, int]]:
    rate = 10 ** generator.gauss(*_RATE) / MINUTES
    if generator.random() < _TIMERS:
        period = min(_PERIODS, key=lambda each: abs(math.log(each * rate)))
        return "timer", dict.fromkeys(range(generator.randrange(period), minutes, period), 1)
    peak = generator.randrange(MINUTES)
    counts: dict[int, int] = {}
    if rate > _LEAST_DENSE:
        for minute in range(minutes):
            mean = rate * _daily(minute, peak)
            if count := max(0, round(generator.gauss(mean, math.sqrt(mean)))):
                counts[minute] = count
        return "http", counts
    # The coefficient of variation of the gaps, from which the gamma distribution has its shape.
    kind = generator.random()
    variation = 0.05 if kind < _REGULAR else generator.uniform(0.3, 1) if kind < _MODERATE else generator.lognormvariate(math.log(2), 0.5)
    shape = variation**-2
    now = generator.random() / rate
    while now < minutes:
        counts[int(now)] = counts.get(int(now), 0) + 1
        now += generator.gammavariate(shape, 1 / (shape * rate * (1 if kind < _REGULAR else _daily(int(now), peak))))
    return generator.choice(("http", "queue", "event")), counts


def _daily(minute: int, peak: int) -> float:
    return 1 + 0.7 * math.cos(2 * math.pi * (minute - peak) / MINUTES)
