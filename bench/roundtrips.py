"""Table: what a system call costs the program that makes it, from `getppid` to `open`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import guest_numbers
from bench.ground import DATA
from bench.report import Table, Target

if TYPE_CHECKING:
    from bench.peers import Peer

ROUNDS = 5
MEMORY = "/dev/shm"
"""A directory in memory that every peer has."""
LABELS = {
    "getppid": ("getppid", Target(limit=400)),
    "read_zero": ("read 4 KiB, /dev/zero", None),
    "read_file": ("pread 4 KiB, file of the root", None),
    "read_memory": ("pread 4 KiB, file in memory", Target(limit=800)),
    "write_memory": ("pwrite 4 KiB, file in memory", None),
    "open_close": ("open and close", Target(limit=2000)),
    "stat": ("stat", Target(limit=2000)),
}


def measure(peers: list[Peer]) -> Table:
    """Rounds in which each peer runs the guest once."""
    arguments = {peer.name: ["/bin/roundtrip", peer.path_of(DATA), MEMORY] for peer in peers}
    return Table(f"Round trip of a system call, median of {ROUNDS} runs", guest_numbers.rows(peers, arguments, LABELS, ROUNDS))
