"""What the host knows of a process and all its descendants: memory and CPU time."""

from __future__ import annotations

import os
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")


def _parents() -> dict[int, int]:
    """The parent of each process."""
    result = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                result[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    return result


def tree(pid: int) -> list[int]:
    """A process and all its descendants."""
    return trees([pid])[0]


def trees(pids: list[int]) -> list[list[int]]:
    """Of each process, itself and all its descendants."""
    children: dict[int, list[int]] = {}
    for child, parent in _parents().items():
        children.setdefault(parent, []).append(child)
    result = []
    for pid in pids:
        found = [pid]
        for ancestor in found:
            found += children.get(ancestor, [])
        result.append(found)
    return result


def proportional_memory(pids: list[int]) -> int:
    """Bytes of memory, shared pages divided by the number of processes that share them."""
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                total += int(line.split()[1]) << 10
    return total


def name(pid: int) -> str:
    """What a process calls itself."""
    return Path(f"/proc/{pid}/comm").read_text().strip()


def cpu_ticks(pids: list[int]) -> int:
    """CPU time in clock ticks, as the host counts it for each process."""
    total = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total


def cpu_microseconds(pids: list[int]) -> float:
    """CPU time as the host's scheduler counts it for each thread: finer than ticks."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1000


def milliseconds_per_tick() -> float:
    """How long a clock tick is."""
    return 1000 / _TICKS
