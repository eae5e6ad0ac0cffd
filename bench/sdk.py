"""Table: what the Python package costs, from its import to a sandbox's first output."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from bench.peers import PATIENCE, Launch, our_binary
from bench.report import NATIVE, OURS, Cell, Row, Table, Target

ROUNDS = 20
IMPORT_TARGET = 60.0
FIRST_OUTPUT = """
import statistics, time
from cloudpilot import Sandbox
times = []
for _ in range(11):
    before = time.perf_counter_ns()
    with Sandbox.create() as sandbox:
        created = time.perf_counter_ns()
        assert sandbox.commands.run("echo hello").stdout == "hello\\n"
        times.append((created - before, time.perf_counter_ns() - before))
print(*(statistics.median(column) / 1e6 for column in zip(*times[1:])))
"""

POOL_TARGET = 3.0
"""Milliseconds from a pool's sandbox to the first output of its first command."""
FROM_POOL = """
import statistics, time
from cloudpilot import Pool
times = []
with Pool(2) as pool:
    for _ in range(11):
        pool.wait()
        time.sleep(0.3)
        before = time.perf_counter_ns()
        sandbox = pool.create()
        created = time.perf_counter_ns()
        assert sandbox.commands.run("echo hello").stdout == "hello\\n"
        times.append((created - before, time.perf_counter_ns() - before))
        sandbox.kill()
print(*(statistics.median(column) / 1e6 for column in zip(*times[1:])))
"""


def start(code: str) -> float:
    """Milliseconds in which Python runs something."""
    before = time.perf_counter_ns()
    status = Launch([sys.executable, "-c", code]).start().wait_closely()
    if status != 0:
        raise RuntimeError(f"`{code}` ended with status {status}")
    return (time.perf_counter_ns() - before) / 1e6


def measure(_peers: object = None) -> Table:
    """Python alone and with the package in turns, then sandboxes in one process."""
    if our_binary() is None:
        return Table("Python package", [Row("import", "ms", {OURS: Cell(reason="not installed (`make build`)")})])
    alone, imported = [], []
    for _ in range(ROUNDS):
        alone.append(start("pass"))
        imported.append(start("import cloudpilot"))
    bare, whole = statistics.median(alone), statistics.median(imported)
    rows = [
        Row("start of Python, with the import", "ms", {NATIVE: Cell(bare), OURS: Cell(whole)}),
        Row("the import alone", "ms", {OURS: Cell(max(0.0, whole - bare))}, Target(limit=IMPORT_TARGET)),
    ]
    created, output = _two_numbers(FIRST_OUTPUT)
    rows.append(Row("Sandbox.create()", "ms", {OURS: created}))
    rows.append(Row("Sandbox.create() to the first output of a command", "ms", {OURS: output}))
    created, output = _two_numbers(FROM_POOL)
    rows.append(Row("pool.create()", "ms", {OURS: created}))
    rows.append(Row("pool.create() to the first output of a command", "ms", {OURS: output}, Target(limit=POOL_TARGET)))
    return Table(f"Python package, medians of {ROUNDS} and 10 rounds", rows)


def _two_numbers(code: str) -> tuple[Cell, Cell]:
    """Runs Python that prints two numbers."""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=PATIENCE)
    if answer.returncode == 0:
        first, second = map(float, answer.stdout.split())
        return Cell(first), Cell(second)
    reason = (answer.stderr.strip().splitlines() or ["no reason given"])[-1]
    cell = Cell(reason=f"does not run here ({reason[:100]})")
    return cell, cell
