"""Table: what an operation costs while much of a kind is there: threads, files, timers and so on, up to the thousands.

`python -m bench.curves DIRECTORY` writes all points as `curves.csv`, and plots of them as `curves.svg`.
"""

from __future__ import annotations

import csv
import math
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bench.report import NATIVE, OURS, Cell, Row, Table, Target

if TYPE_CHECKING:
    from bench.peers import Peer

SIZES = {
    "threads": (1, 10, 100, 1000),
    "processes": (1, 10, 100, 1000),
    "files": (10, 100, 1000, 10_000),
    "directory": (10, 100, 1000, 10_000, 100_000),
    "mapped": (1, 16, 128, 1024),
    "areas": (10, 100, 1000, 10_000),
    "epoll": (10, 100, 1000, 10_000),
    "timers": (10, 100, 1000, 4000),
    "watches": (10, 100, 1000, 10_000),
    "sockets": (10, 100, 1000, 5000),
}
TITLES = {
    "threads": "threads",
    "processes": "processes",
    "files": "open files",
    "directory": "files in a directory",
    "mapped": "MiB mapped",
    "areas": "memory areas",
    "epoll": "entries of an epoll",
    "timers": "POSIX timers",
    "watches": "inotify watches",
    "sockets": "pairs of unix sockets",
}
ROUNDS = 3
"""Each point is the quickest of these: what disturbs a measurement only ever makes it slower."""
GROWTH = 3.0
"""Times that an operation may cost more among the most than among the fewest that are no exception: caches miss more often, that is all."""
Points = dict[tuple[str, str], dict[int, dict[str, float]]]
"""Nanoseconds by kind and operation, then size, then who."""


def points(peers: list[Peer]) -> Points:
    """Measures everything, one after the other in turns."""
    result: Points = {}
    for kind, sizes in SIZES.items():
        for size in sizes:
            for _ in range(ROUNDS):
                for peer in peers:
                    for operation, cost in _once(peer, kind, size).items():
                        costs = result.setdefault((kind, operation), {}).setdefault(size, {})
                        costs[peer.name] = min(cost, costs.get(peer.name, math.inf))
    return result


def _once(peer: Peer, kind: str, size: int) -> dict[str, float]:
    read, write = os.pipe()
    running = peer.launch(["/bin/curves", kind, str(size), "/tmp" if peer.name == OURS else "/dev/shm"]).start(write)
    os.close(write)
    with open(read, encoding="ascii") as lines:
        found = {name: float(number) for name, number in (line.rsplit(" ", 1) for line in lines)}
    if running.wait_closely() != 0:
        raise RuntimeError(f"{peer.name} could not measure {size} {TITLES[kind]}")
    return found


def measure(peers: list[Peer]) -> Table:
    """The cost at the largest size, and how much more that is than at the second smallest, where one start no longer shows."""
    able = [peer for peer in peers if peer.name in (NATIVE, OURS) and peer.reason is None]
    rows = []
    for (kind, operation), costs in points(able).items():
        sizes = sorted(costs)
        largest = costs[sizes[-1]]
        label = f"{sizes[-1]:,} {TITLES[kind]}: {operation}"
        rows.append(Row(label, "ns", {name: Cell(cost) for name, cost in largest.items()}))
        growth = {name: Cell(cost / costs[sizes[1]][name]) for name, cost in largest.items()}
        rows.append(Row(f"  times its cost at {sizes[1]:,}", "", growth, Target(limit=GROWTH)))
    return Table(f"Cost of an operation where there is much, quickest of {ROUNDS} rounds", rows)


def as_csv(all_points: Points) -> str:
    """A line a point."""
    from io import StringIO

    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["kind", "operation", "size", "native_ns", "cloudpilot_ns"])
    for (kind, operation), costs in all_points.items():
        for size, cost in sorted(costs.items()):
            writer.writerow([kind, operation, size, *(f"{cost[name]:.1f}" if name in cost else "" for name in (NATIVE, OURS))])
    return text.getvalue()


def main() -> int:
    """Measures, and writes both files."""
    from bench import plot
    from bench.ground import Ground
    from bench.peers import all_peers

    if len(sys.argv) != 2:
        print("usage: python -m bench.curves DIRECTORY", file=sys.stderr)
        return 2
    directory = Path(sys.argv[1])
    ground = Ground()
    try:
        able = [peer for peer in all_peers(ground) if peer.name in (NATIVE, OURS) and peer.reason is None]
        found = points(able)
    finally:
        ground.close()
    (directory / "curves.csv").write_text(as_csv(found))
    (directory / "curves.svg").write_text(plot.small_multiples(found, TITLES))
    return 0


if __name__ == "__main__":
    sys.exit(main())
