"""Guests that print a name and a number a line: running them in rounds, and the rows of a table from what they print."""

from __future__ import annotations

import os
import statistics
from typing import TYPE_CHECKING

from bench.report import Cell, Row, Target

if TYPE_CHECKING:
    from bench.peers import Peer


def once(peer: Peer, argv: list[str]) -> dict[str, float]:
    """What a guest prints, by its own clock."""
    launch = peer.launch(argv)
    read, write = os.pipe()
    try:
        running = launch.start(write)
    finally:
        os.close(write)
    with os.fdopen(read) as pipe:
        lines = pipe.read().split("\n")
    status = running.wait()
    if status != 0:
        raise RuntimeError(f"{argv[0]} in {peer.name} ended with status {status}")
    return {label: float(value) for label, value in (line.split() for line in lines if line)}


def rows(peers: list[Peer], arguments: dict[str, list[str]], labels: dict[str, tuple[str, Target | None]], rounds: int) -> list[Row]:
    """Rounds in which each peer runs the guest once, with its own arguments; medians of the rounds."""
    results: dict[str, list[dict[str, float]]] = {peer.name: [] for peer in peers}
    for _ in range(rounds):
        for peer in peers:
            if peer.reason is None:
                results[peer.name].append(once(peer, arguments[peer.name]))
    answer = []
    for key, (label, target) in labels.items():
        cells = {
            peer.name: Cell(reason=peer.reason)
            if peer.reason is not None
            else Cell(statistics.median(result[key] for result in results[peer.name]))
            for peer in peers
        }
        answer.append(Row(label, "ns", cells, target))
    return answer
