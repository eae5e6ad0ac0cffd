"""Table: what it costs to hand something over: between processes and threads, from the kernel to a page, from one program to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import guest_numbers
from bench.report import NATIVE, Table, Target

if TYPE_CHECKING:
    from bench.peers import Peer

ROUNDS = 5
LABELS = {
    "pipe": ("pipes: a byte to another process and back", Target(peer=NATIVE, times=1 / 2.5)),
    "socket": ("the same by a pair of unix sockets", None),
    "futex": ("futex: wake another thread, and be woken", Target(peer=NATIVE, times=1 / 2)),
    "fault": ("first touch of a page of anonymous memory", Target(peer=NATIVE, times=1 / 1.5)),
    "exec": ("fork, exec of a static program, wait", Target(peer=NATIVE, times=1 / 3)),
    "thread": ("start of a thread, and join", None),
}


def measure(peers: list[Peer]) -> Table:
    """Rounds in which each peer runs the guest once."""
    arguments = {peer.name: ["/bin/exchange"] for peer in peers}
    return Table(f"Hand-overs, median of {ROUNDS} runs", guest_numbers.rows(peers, arguments, LABELS, ROUNDS))
