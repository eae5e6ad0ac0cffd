"""Table: from the spawn of a runtime's binary to the exit of a program in it."""

from __future__ import annotations

import statistics
import sys
import time
from typing import TYPE_CHECKING

from bench.report import NATIVE, OURS, RUNC, RUNSC, Cell, Row, Table, Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.peers import Launch, Peer

    Program = Callable[[Peer], Launch]

ROUNDS = 30
PILOT_ROUNDS = 15
STATIC_TARGET = 5.0
PYTHON_MARGIN = 8.0
"""Milliseconds that the start of Python may take longer than native."""
PILOT = "import sys; from cloudpilot.cli import main; sys.exit(main())"
"""What the console script does."""


def once(peer: Peer, program: Program = lambda peer: peer.launch(["/bin/true"])) -> float:
    """Milliseconds of one start."""
    launch = program(peer)
    before = time.perf_counter_ns()
    running = launch.start()
    status = running.wait_closely()
    after = time.perf_counter_ns()
    if status != 0:
        raise RuntimeError(f"{peer.name} ended with status {status}")
    return (after - before) / 1e6


PROGRAMS: dict[str, Program] = {
    "static program that ends at once": lambda peer: peer.launch(["/bin/end"]),
    "/bin/true": lambda peer: peer.launch(["/bin/true"]),
    "python3 -c pass": lambda peer: peer.launch_host(["/usr/bin/python3", "-c", "pass"]),
}


def measure(peers: list[Peer]) -> Table:
    """Rounds in which each peer starts each once, so that what else the machine does hits all of them."""
    able = [peer for peer in peers if peer.reason is None]
    times: dict[str, dict[str, list[float]]] = {label: {peer.name: [] for peer in able} for label in PROGRAMS}
    for number in range(ROUNDS + 1):
        for label, program in PROGRAMS.items():
            for peer in able:
                took = once(peer, program)
                if number:  # the first fills caches
                    times[label][peer.name].append(took)
    rows = []
    for label, of_peers in times.items():
        unable = {peer.name: Cell(reason=peer.reason) for peer in peers if peer.reason is not None}
        medians = {**unable, **{name: Cell(statistics.median(taken)) for name, taken in of_peers.items()}}
        fastest = {**unable, **{name: Cell(min(taken)) for name, taken in of_peers.items()}}
        rows += [Row(label, "ms", medians, _target(label, medians)), Row("  fastest", "ms", fastest)]
    if any(peer.name == OURS for peer in able):
        rows.append(Row("`pilot run /bin/true`, host's root", "ms", {OURS: Cell(_pilot())}))
    described = [peer.describe() for peer in able if peer.name in (RUNC, RUNSC)]
    return Table(f"From spawn to exit, medians of {ROUNDS} rounds", rows, described)


def _target(label: str, medians: dict[str, Cell]) -> Target:
    native = medians.get(NATIVE, Cell()).value
    if label.startswith("python3") and native is not None:
        return Target(limit=round(native + PYTHON_MARGIN, 1))
    return Target(limit=STATIC_TARGET) if label.startswith("static") else Target(peer=RUNC, times=2)


def _pilot() -> float:
    """Milliseconds of the whole command, the start of Python included."""
    from bench.peers import Launch

    times = []
    for _ in range(PILOT_ROUNDS):
        before = time.perf_counter_ns()
        status = Launch([sys.executable, "-c", PILOT, "run", "/bin/true"]).start().wait_closely()
        times.append((time.perf_counter_ns() - before) / 1e6)
        if status != 0:
            raise RuntimeError(f"`pilot run` ended with status {status}")
    return statistics.median(times)
