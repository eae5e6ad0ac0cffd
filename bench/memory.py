"""Table: memory of an idle sandbox, all its processes together, each shared page counted once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bench import processes
from bench.report import NATIVE, OURS, Cell, Row, Table, Target

if TYPE_CHECKING:
    from bench.peers import Peer

SETTLE = 2.0
"""Seconds that a runtime has to finish its start."""
TARGET = 3.5


def measure(peers: list[Peer]) -> Table:
    """Starts a sleeping program in each and adds up the proportional set sizes."""
    cells: dict[str, Cell] = {}
    notes: list[str] = []
    for peer in peers:
        if peer.reason is not None:
            cells[peer.name] = Cell(reason=peer.reason)
            continue
        running = peer.launch(["/bin/sleep", "600"]).start()
        try:
            time.sleep(SETTLE)
            pids = processes.tree(running.pid)
            cells[peer.name] = Cell(processes.proportional_memory(pids) / (1 << 20))
            if peer.name != NATIVE:
                parts = (f"{processes.name(pid)} {processes.proportional_memory([pid]) / (1 << 20):.2f}" for pid in pids)
                notes.append(f"{peer.name}: {', '.join(parts)} MiB")
        except OSError as error:
            cells[peer.name] = Cell(reason=f"not readable here ({error.strerror})")
        finally:
            running.stop()
    rows = [Row("sum of PSS", "MiB", cells, Target(limit=TARGET))]
    return Table("Memory of an idle sandbox (`sleep 600`)", rows, [*notes, f"{OURS}: supervisor, janitor, kernel process and stubs"])
