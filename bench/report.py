"""Tables: what a benchmark answers, as text for people and as JSON for programs."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass, field
from typing import Any

NATIVE, OURS, RUNC, RUNSC = "native", "cloudpilot", "runc", "runsc"
PEERS = (NATIVE, OURS, RUNC, RUNSC)


@dataclass
class Cell:
    """A measured number, or the reason why there is none."""

    value: float | None = None
    reason: str | None = None

    def text(self, unit: str) -> str:
        """The number with its unit, or the reason."""
        if self.value is None:
            return self.reason or "not measured"
        digits = 0 if self.value >= 100 or self.value == 0 else 1 if self.value >= 10 else 2
        return f"{self.value:,.{digits}f} {unit}"


@dataclass
class Target:
    """A limit for our number: at most `limit`, or at least that, or at most `1 / times` of a peer's."""

    limit: float | None = None
    peer: str | None = None
    times: float = 1.0
    least: bool = False

    def judge(self, row: Row) -> tuple[str, float | None, bool | None]:
        """What is wanted, what there is of it (1 is just enough, more is better), and whether that is enough."""
        ours = row.cells.get(OURS, Cell()).value
        if self.least and self.limit is not None:
            ratio = None if ours is None else ours / self.limit
            return f"at least {self.limit:g} {row.unit}", ratio, None if ratio is None else ratio >= 1
        if self.peer is None:
            wanted, bound = f"at most {self.limit:g} {row.unit}", self.limit
        else:
            other = row.cells.get(self.peer, Cell()).value
            part = f"1/{self.times:g} of" if self.times >= 1 else f"{1 / self.times:g} times"
            wanted = f"at most {part} {self.peer}"
            bound = None if other is None else other / self.times
        if ours is None or bound is None:
            return wanted, None, None
        return wanted, None if ours == 0 else bound / ours, ours <= bound


@dataclass
class Row:
    """One measured thing."""

    label: str
    unit: str
    cells: dict[str, Cell]
    target: Target | None = None

    def verdict(self) -> str:
        """How our number stands to its target."""
        if self.target is None:
            return ""
        wanted, ratio, met = self.target.judge(self)
        if met is None:
            return f"{wanted}: not measured"
        margin = "" if ratio is None else f" ({ratio:.2g} times as good)" if met else f" ({1 / ratio:.2g} times too much)"
        return f"{wanted}: {'met' if met else 'MISSED'}{margin}"

    def quotient(self, peer: str) -> float | None:
        """Our number by a peer's, if both were measured."""
        ours, other = self.cells.get(OURS, Cell()).value, self.cells.get(peer, Cell()).value
        return ours / other if ours is not None and other else None

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        cells = {name: cell.value if cell.value is not None else {"reason": cell.reason} for name, cell in self.cells.items()}
        result: dict[str, Any] = {"label": self.label, "unit": self.unit, "cells": cells}
        if self.target is not None:
            wanted, ratio, met = self.target.judge(self)
            result["target"] = {"wanted": wanted, "ratio": ratio, "met": met}
        return result


@dataclass
class Table:
    """What one benchmark answers."""

    title: str
    rows: list[Row]
    notes: list[str] = field(default_factory=list)

    def peers(self) -> list[str]:
        """Those that it has: the usual ones in their usual order, then its own."""
        there = dict.fromkeys(peer for row in self.rows for peer in row.cells)
        return [*(peer for peer in PEERS if peer in there), *(peer for peer in there if peer not in PEERS)]

    def text(self) -> str:
        """For people: aligned columns, only the peers that the table has."""
        peers = self.peers()
        lines = [["", *peers, "target"]]
        for row in self.rows:
            cells = [row.cells[peer].text(row.unit) if peer in row.cells else "" for peer in peers]
            lines.append([row.label, *cells, row.verdict()])
        if not any(row.target for row in self.rows):
            lines = [line[:-1] for line in lines]
        widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
        printed = []
        for line in lines:
            aligned = [line[0].ljust(widths[0])]
            aligned += [text.rjust(width) for text, width in zip(line[1 : len(peers) + 1], widths[1:], strict=False)]
            aligned += line[len(peers) + 1 :]
            printed.append("  " + "  ".join(aligned).rstrip())
        return "\n".join([self.title, *printed, *(f"  {note}" for note in self.notes)])

    def as_json(self) -> dict[str, Any]:
        """For `--json`."""
        return {"title": self.title, "rows": [row.as_json() for row in self.rows], "notes": self.notes}

    def as_csv(self) -> str:
        """For `--csv`: a line a row, a column a peer; what was not measured is empty."""
        text = io.StringIO()
        peers = [*PEERS, *(peer for peer in self.peers() if peer not in PEERS)]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["label", "unit", *peers, "wanted", "met"])
        for row in self.rows:
            wanted, _, met = row.target.judge(row) if row.target is not None else ("", None, None)
            values = ["" if (value := row.cells.get(peer, Cell()).value) is None else f"{value:.6g}" for peer in peers]
            writer.writerow([row.label, row.unit, *values, wanted, {True: "yes", False: "no", None: ""}[met]])
        return text.getvalue()
