"""Table: a file of 10 MB through the service into a sandbox and back, with E2B's client."""

from __future__ import annotations

import statistics
import time
import urllib.request

from bench import services
from bench.report import OURS, Cell, Row, Table

ROUNDS = 7
SIZE = 10_000_000


def _rate(before: float) -> float:
    return SIZE / 1e6 / (time.perf_counter() - before)


def measure(_peers: object = None) -> Table:
    """The service and the bare server in turns."""
    data = bytes(range(256)) * (SIZE // 256) + bytes(SIZE % 256)
    up: dict[str, list[float]] = {OURS: [], services.BARE: []}
    down: dict[str, list[float]] = {OURS: [], services.BARE: []}
    with services.cloud() as cloud, services.plain(services.BARE) as bare:
        cloud.set_e2b()
        from e2b import Sandbox

        sandbox = Sandbox.create()
        url = f"http://127.0.0.1:{bare.port}/"
        for _ in range(ROUNDS + 1):
            before = time.perf_counter()
            sandbox.files.write("/tmp/data", data)
            up[OURS].append(_rate(before))
            before = time.perf_counter()
            if bytes(sandbox.files.read("/tmp/data", format="bytes")) != data:
                raise RuntimeError("the file came back changed")
            down[OURS].append(_rate(before))
            before = time.perf_counter()
            urllib.request.urlopen(urllib.request.Request(url, data, method="PUT"), timeout=60).read()
            up[services.BARE].append(_rate(before))
            before = time.perf_counter()
            urllib.request.urlopen(url, timeout=60).read()
            down[services.BARE].append(_rate(before))
        sandbox.kill()
    rows = [
        Row(f"10 MB {label}", "MB/s", {name: Cell(statistics.median(each[1:])) for name, each in times.items()})
        for label, times in (("up", up), ("down", down))
    ]
    return Table("Files through the service", rows, [f"medians of {ROUNDS}; `{services.BARE}` keeps the bytes in memory, over urllib"])
