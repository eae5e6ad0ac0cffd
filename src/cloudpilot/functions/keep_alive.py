"""How long an instance is worth keeping, learned from a function's own gaps between calls.

This is the hybrid histogram of "Serverless in the Wild" (USENIX ATC 2020). Gaps are counted in bins of a minute, up to four hours. Where
that history says something, an instance is kept until the gap that all but one in a hundred stay below; and where even the shortest gaps
are long, it is ended at once and started again shortly before the earliest call that is to be expected. A history that is short, flat or
mostly out of range says nothing: then a fixed time counts, or, if the long gaps are alike, their median.

Everything here is arithmetic: time comes from the caller, nothing is started, nothing is stored.
"""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import Any, Self

BIN = 60.0
"""Seconds of a bin."""
BINS = 240
"""Bins of the histogram: four hours, as in the paper; the counters cost 2 KB a function."""
FIXED = 600.0
"""Seconds where the history says nothing: what Lambda is said to do."""
HEAD_SHARE, TAIL_SHARE = 0.05, 0.99
"""Which gaps the windows begin and end with."""
MARGIN = 0.1
"""How much earlier and later than the history says: the next gap is never quite like those before."""
LEAST_GAPS = 4
"""Gaps before the history counts. With fewer, its percentiles are its extremes."""
LEAST_VARIATION = 2.0
"""Variation of the bins (deviation by mean) below which they are flat: calls come at any time, and their percentiles cut off nothing."""
MOST_OUTSIDE = 0.5
"""Share of gaps out of range above which the histogram speaks for the minority only."""
MOST_GAPS = 4096
"""Gaps after which all counts are halved, so that a function that changes its ways is known by its new ones within a day or two."""
LONG_GAPS = 16
"""Newest gaps out of range that a forecast is made from."""
LEAST_LONG_GAPS = 3
FORECAST_MARGIN = 0.15
"""Around a forecast, on both sides, as in the paper; long gaps that spread more than that are not forecast at all."""


@dataclass(frozen=True, slots=True)
class Windows:
    """What to do with an instance once a call is over.

    Attributes:
        prewarm: Seconds after which one is started again; 0 if the present one is kept instead.
        keep_alive: Seconds that it is kept from then on.
        basis: What that was decided by: `histogram`, `forecast` or `fixed`.
    """

    prewarm: float
    keep_alive: float
    basis: str

    @property
    def end(self) -> float:
        """Seconds after the call at which nothing is kept any more."""
        return self.prewarm + self.keep_alive

    def warm_at(self, gap: float) -> bool:
        """Whether a call after that gap finds an instance."""
        return (self.prewarm == 0 or gap >= self.prewarm) and gap <= self.end

    def idle_time(self, gap: float) -> float:
        """Seconds within that gap in which an instance is kept for nothing."""
        return max(0.0, min(gap, self.end) - self.prewarm)


class History:
    """A function's gaps between the end of a call and the beginning of the next.

    Attributes:
        fixed: Seconds that count where it says nothing.
        gaps: How many it knows.
    """

    __slots__ = ("_bins", "_long", "_outside", "_windows", "fixed", "gaps")

    def __init__(self, fixed: float = FIXED) -> None:
        self.fixed = fixed
        self.gaps = 0
        self._bins = [0] * BINS
        self._outside = 0
        self._long: list[float] = []
        self._windows: Windows | None = None

    def add(self, gap: float) -> None:
        """Counts a gap, in seconds."""
        if not math.isfinite(gap) or gap < 0:
            return  # A clock was set back; that is nobody's habit.
        number = int(gap // BIN)
        self.gaps += 1
        if number < BINS:
            self._bins[number] += 1
        else:
            self._outside += 1
            self._long = [*self._long[1 - LONG_GAPS :], gap]
        if self.gaps > MOST_GAPS:
            self._bins = [count // 2 for count in self._bins]
            self._outside //= 2
            self.gaps = sum(self._bins) + self._outside
        self._windows = None

    def windows(self) -> Windows:
        """What its history says of the next gap."""
        if self._windows is None:
            self._windows = self._decide()
        return self._windows

    def _decide(self) -> Windows:
        if self._outside > MOST_OUTSIDE * self.gaps:
            return self._forecast() or Windows(0.0, self.fixed, "fixed")
        if self.gaps < LEAST_GAPS or _variation(self._bins) < LEAST_VARIATION:
            return Windows(0.0, self.fixed, "fixed")
        head = _percentile_bin(self._bins, HEAD_SHARE) * BIN * (1 - MARGIN)
        tail = (_percentile_bin(self._bins, TAIL_SHARE) + 1) * BIN * (1 + MARGIN)
        # An end and a start cost more than a minute of waiting does.
        prewarm = head if head > BIN else 0.0
        return Windows(prewarm, tail - prewarm, "histogram")

    def _forecast(self) -> Windows | None:
        if len(self._long) < LEAST_LONG_GAPS:
            return None
        middle = statistics.median(self._long)
        if any(abs(gap - middle) > FORECAST_MARGIN * middle for gap in self._long):
            return None
        return Windows(middle * (1 - FORECAST_MARGIN), middle * 2 * FORECAST_MARGIN, "forecast")

    def as_value(self) -> dict[str, Any]:
        """What the store keeps: few bins of most functions are in use."""
        return {
            "bins": {str(number): count for number, count in enumerate(self._bins) if count},
            "outside": self._outside,
            "long": self._long,
        }

    @classmethod
    def from_value(cls, value: dict[str, Any], fixed: float = FIXED) -> Self:
        """The history of what the store kept."""
        history = cls(fixed)
        for number, count in value["bins"].items():
            if 0 <= int(number) < BINS:
                history._bins[int(number)] = int(count)
        history._outside = int(value["outside"])
        history.gaps = sum(history._bins) + history._outside
        history._long = [float(gap) for gap in value["long"]][-LONG_GAPS:]
        return history


def _variation(bins: list[int]) -> float:
    mean = sum(bins) / len(bins)
    # In plain numbers: the module `statistics` works in fractions, which takes a hundred times as long.
    return math.sqrt(sum(count * count for count in bins) / len(bins) - mean * mean) / mean if mean else 0.0


def _percentile_bin(bins: list[int], share: float) -> int:
    """The first bin at which at least that share of the gaps is counted."""
    wanted = share * sum(bins)
    counted = 0
    for number, count in enumerate(bins):
        counted += count
        if count and counted >= wanted:
            return number
    return len(bins) - 1
