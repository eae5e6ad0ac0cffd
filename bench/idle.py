"""Table: CPU time that a sandbox uses while its program sleeps."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench import processes
from bench.report import Cell, Row, Table, Target

if TYPE_CHECKING:
    from bench.peers import Peer, Running

SLEEP = 10.0
SETTLE = 2.0


def measure(peers: list[Peer]) -> Table:
    """Lets the program sleep in all of them at the same time, and compares their CPU times before and after."""
    running: dict[str, Running] = {}
    ticks: dict[str, Cell] = {}
    precise: dict[str, Cell] = {}
    try:
        for peer in peers:
            if peer.reason is None:
                running[peer.name] = peer.launch(["/bin/sleep", "600"]).start()
        time.sleep(SETTLE)
        trees = {name: processes.tree(one.pid) for name, one in running.items()}
        before = {name: (processes.cpu_ticks(pids), processes.cpu_microseconds(pids)) for name, pids in trees.items()}
        time.sleep(SLEEP)
        after = {name: (processes.cpu_ticks(pids), processes.cpu_microseconds(pids)) for name, pids in trees.items()}
    finally:
        for one in running.values():
            one.stop()
    for peer in peers:
        if peer.reason is not None:
            ticks[peer.name] = precise[peer.name] = Cell(reason=peer.reason)
        else:
            ticks[peer.name] = Cell(after[peer.name][0] - before[peer.name][0])
            precise[peer.name] = Cell(after[peer.name][1] - before[peer.name][1])
    rows = [Row("clock ticks", "ticks", ticks, Target(limit=0)), Row("by the scheduler's clock", "us", precise)]
    note = f"a tick is {processes.milliseconds_per_tick():g} ms; all processes of the sandbox"
    return Table(f"CPU time used while the program sleeps {SLEEP:g} s", rows, [note])
