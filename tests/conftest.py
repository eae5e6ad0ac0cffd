"""Fixtures of all tests: a state directory of their own, `pilot`, compiled guests; and a look for leftovers after each."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import GUESTS, LEFTOVER_PATIENCE, PILOT, Pilot, sandboxes_left


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The test's own directory of sandboxes; afterwards nothing may be left in it."""
    # Not pytest's `tmp_path`: names of sockets must be short.
    directory = Path(tempfile.mkdtemp(prefix="cp-"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(directory))
    yield directory
    deadline = time.monotonic() + LEFTOVER_PATIENCE
    while (left := sandboxes_left(directory)) and time.monotonic() < deadline:
        time.sleep(0.02)
    if left:
        subprocess.run([PILOT, "kill", "--all"], check=False, timeout=120, env={**os.environ, "XDG_RUNTIME_DIR": str(directory)})
    shutil.rmtree(directory, ignore_errors=True)
    assert not left, "a sandbox was left behind"


@pytest.fixture
def pilot() -> Pilot:
    return Pilot()


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts `pilot` without waiting for it; whatever still runs at the end of the test is killed."""
    running: list[subprocess.Popen[bytes]] = []

    def begin(*arguments: object, **options: object) -> subprocess.Popen[bytes]:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen([str(PILOT), *map(str, arguments)], **{**streams, **options})  # type: ignore[call-overload]
        running.append(process)
        return process

    yield begin
    for process in running:
        if process.poll() is None:
            process.kill()
        process.wait(timeout=60)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()


@pytest.fixture(scope="session")
def guests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the compiled programs of `tests/guests`."""
    directory = tmp_path_factory.mktemp("guests")
    for source in GUESTS.glob("*.c"):
        target = directory / source.stem
        subprocess.run(["gcc", "-O1", "-static", "-pthread", "-w", "-o", target, source], check=True, timeout=120)
        target.chmod(0o755)
    # Whoever the sandbox runs as must be able to read what it is shown.
    for path in (directory, *list(directory.parents)[:2]):
        path.chmod(0o755)
    return directory
