"""Table: what a system call costs the program, from `getppid` to reads of 4 KiB."""

from __future__ import annotations

import os
import statistics
from typing import TYPE_CHECKING

from bench.ground import DATA
from bench.report import RUNSC, Cell, Row, Table, Target

if TYPE_CHECKING:
    from bench.peers import Peer

ROUNDS = 5
LABELS = {"getppid": "getppid", "read_zero": "read 4 KiB, /dev/zero", "read_file": "pread 4 KiB, file of the root"}


def once(peer: Peer) -> dict[str, float]:
    """Nanoseconds of each call, by the guest's own clock."""
    launch = peer.launch(["/bin/roundtrip", peer.path_of(DATA)])
    read, write = os.pipe()
    try:
        running = launch.start(write)
    finally:
        os.close(write)
    with os.fdopen(read) as pipe:
        lines = pipe.read().split("\n")
    status = running.wait()
    if status != 0:
        raise RuntimeError(f"{peer.name} ended with status {status}")
    return {label: float(value) for label, value in (line.split() for line in lines if line)}


def measure(peers: list[Peer]) -> Table:
    """Rounds in which each peer runs the guest once."""
    results: dict[str, list[dict[str, float]]] = {peer.name: [] for peer in peers}
    for _ in range(ROUNDS):
        for peer in peers:
            if peer.reason is None:
                results[peer.name].append(once(peer))
    rows = []
    for key, label in LABELS.items():
        cells = {
            peer.name: Cell(reason=peer.reason)
            if peer.reason is not None
            else Cell(statistics.median(result[key] for result in results[peer.name]))
            for peer in peers
        }
        rows.append(Row(label, "ns", cells, Target(peer=RUNSC, times=8) if key == "getppid" else None))
    return Table(f"Round trip of a system call, median of {ROUNDS} runs", rows)
