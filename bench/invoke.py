"""Table: a warm call of a Python function that does nothing, over AWS's API with its signature checked."""

from __future__ import annotations

import contextlib
import statistics

from bench import load, services
from bench.report import OURS, Cell, Row, Table, Target

CONCURRENCIES = (1, 16, 64)
ROUNDS = 3
SECONDS = 2.0
_WARM_UP = 1.0


def measure(_peers: object = None) -> Table:
    """Rounds of all servers in turns, at each concurrency."""
    with contextlib.ExitStack() as stack:
        cloud = stack.enter_context(services.cloud())
        client = cloud.lambda_client()
        services.make_function(client, "noop")
        servers = {OURS: (cloud.port, cloud.call_request("noop"))}
        for name in (services.BARE, services.SPAWNING):
            servers[name] = stack.enter_context(services.plain(name)).port, services.plain_request()
        found: dict[tuple[str, int], list[load.Load]] = {}
        for concurrency in CONCURRENCIES:
            for port, request in servers.values():
                load.run(port, concurrency, _WARM_UP, request)
            for _ in range(ROUNDS):
                for name, (port, request) in servers.items():
                    result = load.run(port, concurrency, SECONDS, request)
                    if result.others:
                        raise RuntimeError(f"{name}: {result.others} of {result.calls} answers are no success")
                    found.setdefault((name, concurrency), []).append(result)
    rows = []
    for concurrency in CONCURRENCIES:
        medians, slowest = {}, {}
        for name in servers:
            results = found[name, concurrency]
            medians[name] = Cell(statistics.median(each.median for each in results))
            slowest[name] = Cell(statistics.median(each.slowest for each in results))
        rows.append(Row(f"{concurrency} at a time, median", "ms", medians, Target(limit=2.0) if concurrency == 1 else None))
        rows.append(Row(f"{concurrency} at a time, 99 %", "ms", slowest))
    rates = {name: Cell(max(statistics.median(each.rate for each in found[name, count]) for count in CONCURRENCIES)) for name in servers}
    rows.append(Row("calls a second", "/s", rates, Target(limit=1500.0, least=True)))
    notes = [
        f"medians of {ROUNDS} rounds of {SECONDS:g} s; the client shares the machine",
        f"`{services.BARE}`: the same HTTP server, answering by itself; `{services.SPAWNING}`: that, and a plain `python3` for each call",
    ]
    return Table("Warm call of a function that does nothing", rows, notes)
