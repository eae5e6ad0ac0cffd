"""The service as its clients meet it: a process of its own on a port of its own."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from running_service import PILOT, Service, set_e2b


def _made() -> Iterator[Service]:
    # Not pytest's directories: names of sockets must be short.
    service = Service(Path(tempfile.mkdtemp(prefix="cps-")))
    try:
        service.start()
        yield service
        assert '"level": "error"' not in service.log_text(), service.log_text()[-4000:]
    finally:
        subprocess.run([PILOT, "kill", "--all"], check=False, timeout=60, env=service.environment, capture_output=True)
        if service.process is not None and service.process.poll() is None:
            service.stop(signal.SIGKILL)
        shutil.rmtree(service.directory, ignore_errors=True)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """One for a file of tests."""
    yield from _made()


@pytest.fixture
def own_service() -> Iterator[Service]:
    """One for a test that ends it, or counts on being alone."""
    yield from _made()


@pytest.fixture
def e2b_environment(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """What E2B's client is told."""
    set_e2b(service, monkeypatch)
