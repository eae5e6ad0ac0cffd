"""Table: many sandboxes on one host: how fast they start together, and what they cost while they wait."""

from __future__ import annotations

import os
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from bench import processes, start
from bench.report import NATIVE, OURS, RUNC, RUNSC, Cell, Row, Table

if TYPE_CHECKING:
    from bench.peers import Peer, Running

STARTS = {NATIVE: 200, OURS: 200, RUNC: 50, RUNSC: 20}
"""Starts of each; fewer of those that take long."""
AT_A_TIME = 2 * (os.cpu_count() or 1)
IDLE = 500
"""Sandboxes that wait at the same time."""
SETTLE = 5.0
"""Seconds until what gives back memory after its start has done so."""
SLEEP = 5.0
OWN = 3
"""Processes of a sandbox with descriptors of their own; its stubs share one of them."""


def measure(peers: list[Peer]) -> Table:
    """Starts of each peer, several at a time; then a crowd of sleeping sandboxes of ours."""
    rates: dict[str, Cell] = {}
    halves: dict[str, Cell] = {}
    slowest: dict[str, Cell] = {}
    for peer in peers:
        if peer.reason is not None:
            rates[peer.name] = halves[peer.name] = slowest[peer.name] = Cell(reason=peer.reason)
            continue
        start.once(peer)  # fills caches
        before = time.perf_counter()
        with ThreadPoolExecutor(AT_A_TIME) as threads:
            times = sorted(threads.map(lambda _, peer=peer: start.once(peer), range(STARTS[peer.name])))
        rates[peer.name] = Cell(len(times) / (time.perf_counter() - before))
        halves[peer.name] = Cell(statistics.median(times))
        slowest[peer.name] = Cell(times[min(len(times) - 1, len(times) * 99 // 100)])
    rows = [
        Row("starts of /bin/true a second", "", rates),
        Row("of these half within", "ms", halves),
        Row("of these 99 % within", "ms", slowest),
    ]
    ours = next(peer for peer in peers if peer.name == OURS)
    rows += _crowd(ours) if ours.reason is None else [Row("idle sandboxes at once", "", {OURS: Cell(reason=ours.reason)})]
    numbers = ", ".join(f"{name} {count}" for name, count in STARTS.items())
    return Table(f"Crowds: starts {AT_A_TIME} at a time ({numbers}), and {IDLE} idle sandboxes", rows)


def _crowd(ours: Peer) -> list[Row]:
    available = _available()
    crowd: list[Running] = []
    try:
        with ThreadPoolExecutor(AT_A_TIME) as threads:
            crowd = list(threads.map(lambda _: ours.launch(["/bin/sleep", "600"]).start(), range(IDLE)))
        time.sleep(SETTLE)
        trees = processes.trees([one.pid for one in crowd])
        pids = [pid for tree in trees for pid in tree]
        # What has no stub has not started its program.
        alive = sum(len(tree) > OWN for tree in trees)
        before = processes.cpu_microseconds(pids)
        time.sleep(SLEEP)
        spent = processes.cpu_microseconds(pids) - before
        memory = processes.proportional_memory(pids) / (1 << 20)
        figures: list[tuple[str, str, float]] = [
            ("idle sandboxes at once", "", alive),
            ("memory of all their processes (PSS)", "MiB", memory),
            ("that is for each", "MiB", memory / IDLE),
            ("memory that the host has less, its own included, for each", "MiB", (available - _available()) / IDLE / (1 << 20)),
            ("host processes", "", len(pids)),
            ("host threads", "", sum(len(os.listdir(f"/proc/{pid}/task")) for pid in pids)),
            ("descriptors", "", sum(len(os.listdir(f"/proc/{pid}/fd")) for tree in trees for pid in tree[:OWN])),
            (f"CPU time in {SLEEP:g} s", "us", spent),
        ]
    finally:
        ending = [threading.Thread(target=one.stop) for one in crowd]
        for thread in ending:
            thread.start()
        for thread in ending:
            thread.join()
    return [Row(label, unit, {OURS: Cell(value)}) for label, unit, value in figures]


def _available() -> int:
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable:"))
