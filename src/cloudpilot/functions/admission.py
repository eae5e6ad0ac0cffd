"""Whether the host has memory for another instance, and how much it wants back.

Memory is promised several times over, since most programs use a part of what they may: what counts is what instances were measured to
use, and until then what their function's earlier ones used. The host keeps a reserve. When it gets near to that, instances that wait for
calls are ended, and when that does not help, no more are started; what serves a call is never ended for it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

PROMISE_FACTOR = 10
"""How many times the memory may be promised. Beyond that, a few functions that do use theirs would bring the host down."""
RESERVE_SHARE = 0.10
"""Share of the memory that no instance gets: the service, the host's own programs, and what running instances may still grow by."""
LOW_SHARE = 0.15
"""Share below which instances that wait are ended: before the reserve is touched, since ending them takes a moment."""
MOST_STALLED = 20.0
"""Share of the last ten seconds, in per cent, in which tasks waited for memory. Above it the host is short, whatever it says is free."""
FIRST_GUESS = 64 << 20
"""Bytes that an instance of a function is expected to use which was never measured: an interpreter and a few libraries."""
OVERHEAD = 8 << 20
"""Bytes that the sandbox itself takes beside its guest."""
_READ_AGE = 0.2
"""Seconds for which figures of the host are good: a burst of starts asks for them many times."""


@dataclass(frozen=True, slots=True)
class Host:
    """The host's memory.

    Attributes:
        total: Bytes that there are.
        available: Bytes that could be had without swapping.
        stalled: Share of the last ten seconds, in per cent, in which some task waited for memory.
    """

    total: int
    available: int
    stalled: float = 0.0


@dataclass(slots=True)
class _Use:
    promised: int
    expected: int
    measured: bool = False


def read_host() -> Host:
    """The host's memory now, or that of the control group that we are in if it has less."""
    figures: dict[str, int] = {}
    with open("/proc/meminfo") as text:
        for line in text:
            name, _, value = line.partition(":")
            if name in ("MemTotal", "MemAvailable"):
                figures[name] = int(value.split()[0]) << 10
    host = Host(figures["MemTotal"], figures["MemAvailable"], _stalled())
    limit, used = _number("/sys/fs/cgroup/memory.max"), _number("/sys/fs/cgroup/memory.current")
    if limit is not None and used is not None and limit < host.total:
        return Host(limit, min(host.available, max(0, limit - used)), host.stalled)
    return host


def _number(path: str) -> int | None:
    try:
        with open(path) as text:
            return int(text.read())
    except (OSError, ValueError):
        return None


def _stalled() -> float:
    try:
        with open("/proc/pressure/memory") as text:
            return float(text.readline().split("avg10=")[1].split()[0])
    except (OSError, IndexError, ValueError):
        return 0.0  # A kernel without such figures.


class Admission:
    """Accounts for the instances of all functions."""

    def __init__(self, budget: int | None = None, read: Callable[[], Host] = read_host) -> None:
        self._budget = budget
        self._read = read
        self._host: tuple[float, Host] | None = None
        self._uses: dict[object, _Use] = {}
        self._peaks: dict[object, int] = {}

    def host(self) -> Host:
        """The host's memory, as of a moment ago."""
        now = time.monotonic()
        if self._host is None or now - self._host[0] > _READ_AGE:
            self._host = now, self._read()
        return self._host[1]

    @property
    def budget(self) -> int:
        """Bytes that instances may use in all."""
        total = self.host().total
        return int(total * (1 - RESERVE_SHARE)) if self._budget is None else min(self._budget, total)

    def used(self) -> int:
        """Bytes that instances use, as far as is known."""
        return sum(use.expected for use in self._uses.values())

    def room(self) -> int:
        """Bytes that new instances may use."""
        host = self.host()
        # The host has not yet seen what those will take that were not measured.
        coming = sum(use.expected for use in self._uses.values() if not use.measured)
        return min(host.available - int(host.total * RESERVE_SHARE) - coming, self.budget - self.used())

    def expected(self, function: object, promised: int) -> int:
        """Bytes that an instance of that function will use."""
        return min(self._peaks.get(function, FIRST_GUESS), promised) + OVERHEAD

    def refusal(self, function: object, promised: int) -> str | None:
        """Why another instance of that function cannot be started, if it cannot."""
        needed, room = self.expected(function, promised), self.room()
        if self.host().stalled > MOST_STALLED:
            return f"programs of the host wait for memory {self.host().stalled:.0f} % of the time"
        if needed > room:
            return f"it would use some {needed >> 20} MiB, and {max(0, room) >> 20} MiB are left"
        if sum(use.promised for use in self._uses.values()) + promised > PROMISE_FACTOR * self.budget:
            return f"{PROMISE_FACTOR} times the memory that there is has been promised already"
        return None

    def started(self, instance: object, function: object, promised: int) -> None:
        """An instance is about to be started."""
        self._uses[instance] = _Use(promised, self.expected(function, promised))

    def measured(self, instance: object, function: object, used: int) -> None:
        """An instance uses that much."""
        use = self._uses.get(instance)
        if use is not None:
            use.expected, use.measured = used + OVERHEAD, True
            # The most that one ever used, slowly forgotten: a new instance is to have room for its worst day.
            self._peaks[function] = max(used, int(self._peaks.get(function, 0) * 0.99))

    def ended(self, instance: object) -> None:
        """An instance is gone."""
        self._uses.pop(instance, None)

    def use_of(self, instance: object) -> int:
        """Bytes that an instance is known or expected to use."""
        use = self._uses.get(instance)
        return 0 if use is None else use.expected

    def shortage(self) -> int:
        """Bytes that instances which wait are to give back."""
        host = self.host()
        short = max(int(host.total * LOW_SHARE) - host.available, self.used() - int(self.budget * (1 - LOW_SHARE / 3)))
        if host.stalled > MOST_STALLED:
            short = max(short, int(host.total * (LOW_SHARE - RESERVE_SHARE)))
        return max(0, short)
