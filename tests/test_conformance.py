"""Linux semantics in detail: programs that check hundreds of cases run on the host's Linux first, then inside; both must say the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from harness import Pilot

FAMILIES = ["files", "processes", "signals", "futexes", "pipes", "timers", "memory", "credentials", "ttys", "ipc", "filters", "tracing"]

pytestmark = [pytest.mark.timeout(90), pytest.mark.skipif(os.geteuid() != 0, reason="the cases about users need root on the host, too")]


def failures(output: str) -> list[str]:
    """The lines of cases that failed."""
    return [line for line in output.splitlines() if not line.startswith("ok ")]


@pytest.mark.parametrize("family", FAMILIES)
def test_family(pilot: Pilot, guests: Path, family: str) -> None:
    native = subprocess.run([guests / family], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=40, check=False)
    assert native.returncode == 0, native.stdout[-2000:]
    # A case that fails on this host says something about the host only.
    excused = {line.split(" got ")[0] for line in failures(native.stdout)}
    result = pilot.run("--volume", f"{guests}:/guests:ro", "--", f"/guests/{family}")
    inside = result.stdout.decode()
    found = [line for line in failures(inside) if line.split(" got ")[0] not in excused]
    said = result.stderr.decode()[-2000:]
    assert not found, said
    assert result.returncode == 0, said
    assert len(inside.splitlines()) == len(native.stdout.splitlines())
