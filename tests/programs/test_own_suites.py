"""Python's own regression suite, as Debian packages it, of what processes do: each module ends on the host as it does inside."""

from __future__ import annotations

import subprocess

import pytest
from harness import Pilot

pytestmark = pytest.mark.timeout(2700)

PYTHON = "/usr/bin/python3"
MODULES = ["asyncio", "multiprocessing_fork", "pty", "selectors", "signal", "socket", "ssl", "subprocess", "threading"]
LONGEST = 400


def result(output: str) -> str:
    """What the suite says in the end."""
    said = [line for line in output.splitlines() if line.startswith("Tests result:")]
    return said[-1] if said else output[-1500:]


@pytest.mark.parametrize("module", MODULES)
def test_module(pilot: Pilot, tmp_path_factory: pytest.TempPathFactory, module: str) -> None:
    command = f"cd $(mktemp -d); export PYTHONDONTWRITEBYTECODE=1; exec {PYTHON} -m test --timeout {LONGEST} test_{module} 2>&1"
    inside = pilot.run("--", "bash", "-c", command, timeout=LONGEST + 20)
    found = result(inside.stdout.decode(errors="replace"))
    if found != "Tests result: SUCCESS":
        native = subprocess.run(["bash", "-c", command], capture_output=True, stdin=subprocess.DEVNULL, timeout=LONGEST + 20, check=False)
        assert found == result(native.stdout.decode(errors="replace")), inside.stdout.decode(errors="replace")[-3000:]
