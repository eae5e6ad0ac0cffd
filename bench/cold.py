"""Table: a call that finds no instance, and a sandbox through E2B's client, from nothing to the first output."""

from __future__ import annotations

import statistics
import subprocess
import time
from typing import TYPE_CHECKING, Any

from bench import services
from bench.report import OURS, Cell, Row, Table

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 20
_SLOWEST = 0.99


def _timed(work: Callable[[], object]) -> float:
    before = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - before)


def _call(client: Any) -> None:
    client.invoke(FunctionName="noop", Payload=b"{}")["Payload"].read()


def _spawn() -> None:
    code = "import json, sys; json.dump(json.load(sys.stdin), sys.stdout)"
    subprocess.run(["/usr/bin/python3", "-c", code], input=b"{}", capture_output=True, check=True, timeout=60)


def measure(_peers: object = None) -> Table:
    """Calls and plain starts in turns, then sandboxes."""
    cold: list[float] = []
    plain: list[float] = []
    created: list[float] = []
    output: list[float] = []
    echoed: list[float] = []
    with services.cloud() as cloud:
        client = cloud.lambda_client()
        services.make_function(client, "noop")
        for number in range(ROUNDS + 1):
            # A changed function has no instances.
            client.update_function_configuration(FunctionName="noop", Description=f"round {number}")
            cold.append(_timed(lambda: _call(client)))
            plain.append(_timed(_spawn))
        cloud.set_e2b()
        from e2b import Sandbox

        for _ in range(ROUNDS + 1):
            before = time.perf_counter()
            sandbox = Sandbox.create()
            created.append(1000 * (time.perf_counter() - before))
            if sandbox.commands.run("echo hello").stdout != "hello\n":
                raise RuntimeError("the sandbox does not say hello")
            output.append(1000 * (time.perf_counter() - before))
            sandbox.kill()
            echoed.append(_timed(lambda: subprocess.run(["/bin/echo", "hello"], capture_output=True, check=True, timeout=60)))
    rows = []
    for label, times in (
        ("call that finds no instance", (cold, plain)),
        ("E2B's client: create", (created,)),
        ("create to output", (output, echoed)),
    ):
        names = (OURS, services.SPAWNING)
        # The first round warms up what is not to be measured.
        cells = {name: sorted(each[1:]) for name, each in zip(names, times, strict=False)}
        rows.append(Row(f"{label}, median", "ms", {name: Cell(statistics.median(each)) for name, each in cells.items()}))
        rows.append(Row(f"{label}, 99 %", "ms", {name: Cell(each[int(len(each) * _SLOWEST)]) for name, each in cells.items()}))
    notes = [f"{ROUNDS} rounds through the real `boto3` and `e2b`; `{services.SPAWNING}`: a plain `python3`, or `echo`"]
    return Table("Cold starts through the service", rows, notes)
