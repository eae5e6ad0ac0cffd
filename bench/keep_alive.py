"""Table: how often calls find no instance, and what the waiting ones cost, if a trace is replayed with our policy and with fixed times.

`python -m bench.keep_alive DIRECTORY` replays the files of the Azure Functions trace of 2019 there; without one, a trace is made up.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from bench import azure_trace
from bench.report import OURS, Cell, Row, Table
from cloudpilot.functions.keep_alive import History, Windows

FIXED_MINUTES = (1, 5, 10, 20, 60)
FUNCTIONS, DAYS, SEED = 500, 5, 2019
_MINUTE = 60.0


class Replay:
    """One policy's results."""

    def __init__(self) -> None:
        self.cold = 0
        self.calls = 0
        self.idle = 0.0
        self.shares: list[float] = []

    def run(self, traced: azure_trace.Traced, length: int, windows: Callable[[float | None], Windows]) -> None:
        """Replays a function's calls. `windows` is told each gap, first that there was none, and answers what to do next."""
        cold, idle = 1, 0.0
        now = windows(None)
        before = traced.minutes[0]
        for minute in traced.minutes[1:]:
            gap = (minute - before) * _MINUTE
            before = minute
            cold += not now.warm_at(gap)
            idle += now.idle_time(gap)
            now = windows(gap)
        idle += now.idle_time((length - before) * _MINUTE)
        self.cold += cold
        self.calls += traced.calls
        self.idle += idle * traced.memory_mb
        self.shares.append(100 * cold / traced.calls)


def _fixed(minutes: int) -> Callable[[], Callable[[float | None], Windows]]:
    windows = Windows(0.0, minutes * _MINUTE, "fixed")
    return lambda: lambda _gap: windows


def _learned() -> Callable[[float | None], Windows]:
    history = History()

    def told(gap: float | None) -> Windows:
        if gap is not None:
            history.add(gap)
        return history.windows()

    return told


def replay(directory: Path) -> Table:
    """Replays a trace with every policy."""
    functions, length = azure_trace.read(directory)
    policies = {OURS: _learned, **{f"{minutes} min": _fixed(minutes) for minutes in FIXED_MINUTES}}
    results = {name: Replay() for name in policies}
    for traced in functions:
        for name, policy in policies.items():
            results[name].run(traced, length, policy())
    quartiles = {name: statistics.quantiles(result.shares, n=4)[2] for name, result in results.items()}
    rows = [
        Row("calls that find no instance", "%", {name: Cell(100 * each.cold / each.calls) for name, each in results.items()}),
        Row("the same, of a function on average", "%", {name: Cell(statistics.mean(each.shares)) for name, each in results.items()}),
        Row("the same, of the function at the third quartile", "%", {name: Cell(value) for name, value in quartiles.items()}),
        Row("memory of instances that wait", "GiB h", {name: Cell(each.idle / 1024 / 3600) for name, each in results.items()}),
    ]
    calls = next(iter(results.values())).calls
    title = f"Keep-alive: {len(functions)} functions, {calls:,} calls, {length // azure_trace.MINUTES} days"
    return Table(title, rows, ["at a resolution of a minute; the other columns keep every instance for that fixed time"])


def measure(_peers: object = None) -> Table:
    """Replays a trace that is made up, always the same."""
    with tempfile.TemporaryDirectory(prefix="cloudpilot-trace-") as directory:
        azure_trace.make(Path(directory), FUNCTIONS, DAYS, SEED)
        return replay(Path(directory))


def main() -> None:
    """For a trace of one's own."""
    parser = argparse.ArgumentParser(prog="python -m bench.keep_alive", description=__doc__)
    parser.add_argument("directory", nargs="?", type=Path, help="where the trace's CSV files are")
    directory = parser.parse_args().directory
    print((measure() if directory is None else replay(directory)).text())


if __name__ == "__main__":
    main()
