"""A host that has run out of something: the error says what, and what to raise; and nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness import PILOT, sandboxes_left

GROUPS = [Path("/sys/fs/cgroup/pids"), Path("/sys/fs/cgroup")]
MOST = 32
"""Processes and threads with which a sandbox surely starts."""


@contextlib.contextmanager
def group() -> Iterator[Path]:
    """A control group for processes."""
    parent = next((each for each in GROUPS if (each / "cgroup.procs").exists()), None)
    if parent is None or not os.access(parent, os.W_OK):
        pytest.skip("there is no control group of processes here that this user may make groups in")
    made = parent / f"cloudpilot-test-{uuid.uuid4().hex[:8]}"
    made.mkdir()
    if not (made / "pids.max").exists():
        made.rmdir()
        pytest.skip("the host has no controller of processes here")
    try:
        yield made
    finally:
        made.rmdir()


def test_too_few_processes(state: Path) -> None:
    with group() as limited:
        refused = 0
        for most in [*range(2, 12), MOST]:
            (limited / "pids.max").write_text(str(most))
            enter = f"echo $$ > {limited}/cgroup.procs; exec {shlex.quote(str(PILOT))} run -- /bin/true"
            result = subprocess.run(["bash", "-c", enter], capture_output=True, text=True, timeout=60, check=False)
            if result.returncode != 0:
                refused += 1
                assert result.returncode == 125, (most, result)
                assert "pids.max" in result.stderr, (most, result.stderr)
                assert result.stderr.startswith("error: "), (most, result.stderr)
            assert sandboxes_left(state) == [], most
        assert result.returncode == 0
        assert refused > 0


def test_too_few_open_files(state: Path) -> None:
    limited = f"ulimit -n 12; exec {shlex.quote(str(PILOT))} run -- /bin/true"
    result = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, timeout=60, check=False)
    assert result.returncode == 125
    assert "ulimit -n" in result.stderr
    assert sandboxes_left(state) == []
