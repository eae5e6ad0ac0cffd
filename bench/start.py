"""Table: from the spawn of a runtime's binary to the exit of `/bin/true` in it."""

from __future__ import annotations

import statistics
import sys
import time
from typing import TYPE_CHECKING

from bench.report import OURS, RUNC, RUNSC, Cell, Row, Table, Target

if TYPE_CHECKING:
    from bench.peers import Peer

ROUNDS = 30
PILOT_ROUNDS = 15
PILOT = "import sys; from cloudpilot.cli import main; sys.exit(main())"
"""What the console script does."""


def once(peer: Peer) -> float:
    """Milliseconds of one start."""
    launch = peer.launch(["/bin/true"])
    before = time.perf_counter_ns()
    running = launch.start()
    status = running.wait_closely()
    after = time.perf_counter_ns()
    if status != 0:
        raise RuntimeError(f"{peer.name} ended with status {status}")
    return (after - before) / 1e6


def measure(peers: list[Peer]) -> Table:
    """Rounds in which each peer starts once, so that what else the machine does hits all of them."""
    times: dict[str, list[float]] = {peer.name: [] for peer in peers if peer.reason is None}
    for number in range(ROUNDS + 1):
        for peer in peers:
            if peer.reason is None:
                took = once(peer)
                if number:  # the first fills caches
                    times[peer.name].append(took)
    medians = {peer.name: Cell(statistics.median(times[peer.name])) if peer.reason is None else Cell(reason=peer.reason) for peer in peers}
    fastest = {peer.name: Cell(min(times[peer.name])) if peer.reason is None else Cell(reason=peer.reason) for peer in peers}
    rows = [
        Row("median", "ms", medians, Target(peer=RUNC, times=2)),
        Row("fastest", "ms", fastest),
    ]
    if next(peer for peer in peers if peer.name == OURS).reason is None:
        rows.append(Row("`pilot run`, host's root", "ms", {OURS: Cell(_pilot())}))
    return Table(
        f"Start of /bin/true, {ROUNDS} rounds",
        rows,
        [peer.describe() for peer in peers if peer.name in (RUNC, RUNSC) and peer.reason is None],
    )


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
