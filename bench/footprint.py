"""Table: memory of the service's own process, without sandboxes and with many."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import services
from bench.report import OURS, Cell, Row, Table

SANDBOXES = 300
_AT_ONCE = 4


def _pss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel does not tell proportional set sizes")


def measure(_peers: object = None) -> Table:
    """Starts sandboxes over HTTP; they wait."""
    with services.cloud() as cloud, services.plain(services.BARE) as bare:
        services.wait_until(lambda: bool(cloud.ask("/v1/credentials")), "an answer")
        empty = _pss(cloud.process.pid)
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            made = list(threads.map(lambda _: cloud.ask("/v2/sandboxes", body={"templateID": "base"}), range(SANDBOXES)))
        if len({each["sandboxID"] for each in made}) != SANDBOXES:
            raise RuntimeError("not all sandboxes were started")
        full = _pss(cloud.process.pid)
        plain = _pss(bare.pid)
    rows = [
        Row("without sandboxes", "MiB", {OURS: Cell(empty), services.BARE: Cell(plain)}),
        Row(f"with {SANDBOXES} sandboxes", "MiB", {OURS: Cell(full)}),
        Row("for each of them", "KiB", {OURS: Cell(max(0.0, full - empty) * 1024 / SANDBOXES)}),
    ]
    return Table("Memory of the service's process (PSS)", rows, ["that of the sandboxes themselves is in the table `memory`"])
