"""Table: what a tenant notices of another one's thousand calls at once against a limit of ten."""

from __future__ import annotations

import statistics
import threading

from bench import load, services
from bench.report import Cell, Row, Table

CROWD = 1000
LIMIT = 10
ROUNDS = 3
SECONDS = 2.0
_SLEEP = "import time\ndef handler(event, context):\n    time.sleep(0.2)\n    return event\n"


def measure(_peers: object = None) -> Table:
    """The quiet tenant alone, and while the other one is loud."""
    with services.cloud() as cloud:
        cloud.ask("/v1/projects", body={"name": "loud"})
        other = cloud.ask("/v1/keys", body={"name": "loud", "project": "loud", "role": "user"})
        quiet, loud = cloud.lambda_client(), cloud.lambda_client(other["key"])
        services.make_function(quiet, "quiet")
        services.make_function(loud, "loud", _SLEEP)
        loud.put_function_concurrency(FunctionName="loud", ReservedConcurrentExecutions=LIMIT)
        request, noise = cloud.call_request("quiet"), cloud.call_request("loud", key=other["key"])
        load.run(cloud.port, LIMIT, 1.0, noise)
        load.run(cloud.port, 1, 1.0, request)
        alone: list[load.Load] = []
        beside: list[load.Load] = []
        crowds: list[load.Load] = []
        for _ in range(ROUNDS):
            alone.append(load.run(cloud.port, 1, SECONDS, request))
            crowd = threading.Thread(target=lambda: crowds.append(load.run(cloud.port, CROWD, 0.0, noise)))
            crowd.start()
            beside.append(load.run(cloud.port, 1, SECONDS, request))
            crowd.join()
    columns = {"alone": alone, "beside the crowd": beside}
    crowded = sorted(crowds, key=lambda each: each.others)[ROUNDS // 2]
    rows = [
        Row("median", "ms", {name: Cell(statistics.median(each.median for each in loads)) for name, loads in columns.items()}),
        Row("99 %", "ms", {name: Cell(statistics.median(each.slowest for each in loads)) for name, loads in columns.items()}),
        Row("the crowd: answered 200", "", {"beside the crowd": Cell(float(crowded.calls - crowded.others))}),
        Row("the crowd: refused (429)", "", {"beside the crowd": Cell(float(crowded.others))}),
    ]
    return Table(
        f"A quiet tenant's calls while another sends {CROWD} at once against a limit of {LIMIT}",
        rows,
        [f"medians of {ROUNDS} rounds in turns"],
    )
