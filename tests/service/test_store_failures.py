"""The store cannot be written: what is refused says so, what runs goes on and can be ended, nothing that was answered is lost."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2b import Sandbox
from e2b.exceptions import ServiceBusyException
from running_service import PILOT, Service, set_e2b

DISK = 4 << 20


@pytest.fixture
def small_disk() -> Iterator[Service]:
    """A service whose store lies on a disk of four megabytes."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    service = Service(Path(tempfile.mkdtemp(prefix="cps-")))
    data = service.directory / "data"
    data.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK}", "small", data], check=True, timeout=10)
    try:
        service.start()
        yield service
        assert '"level": "error"' not in service.log_text(), service.log_text()[-4000:]
    finally:
        subprocess.run([PILOT, "kill", "--all"], check=False, timeout=60, env=service.environment, capture_output=True)
        if service.process is not None and service.process.poll() is None:
            service.stop(signal.SIGKILL)
        subprocess.run(["umount", data], check=True, timeout=10)
        shutil.rmtree(service.directory, ignore_errors=True)


def _fill(directory: Path) -> Path:
    filler = directory / "filler"
    descriptor = os.open(filler, os.O_WRONLY | os.O_CREAT)
    try:
        while True:
            os.write(descriptor, bytes(4096))
    except OSError:
        return filler
    finally:
        os.close(descriptor)


def _eventually(condition) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def test_a_full_disk(small_disk: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service = small_disk
    set_e2b(service, monkeypatch)
    kept, ended = Sandbox.create(timeout=300), Sandbox.create(timeout=300)
    filler = _fill(service.directory / "data")
    # The log of the store has room left in its last pages: it is full after some writes.
    with pytest.raises(ServiceBusyException, match=r"full.*make room"):
        for _ in range(300):
            kept.set_timeout(200)
    status, answer = service.request("POST", "/v1/projects", {"name": "other"})
    assert status == 503
    assert "make room" in answer["error"]["remedy"]
    with pytest.raises(ServiceBusyException, match="full"):
        Sandbox.create()
    assert kept.commands.run("echo works").stdout == "works\n"
    assert ended.kill()
    _eventually(lambda: service.sandboxes_left() == [kept.sandbox_id])
    service.stop(signal.SIGKILL)
    filler.unlink()
    service.start()
    assert kept.commands.run("echo still").stdout == "still\n"
    assert [each.sandbox_id for each in Sandbox.list().next_items()] == [kept.sandbox_id]
    again = Sandbox.create()
    assert again.kill()
    assert kept.kill()
    _eventually(lambda: service.sandboxes_left() == [])


def test_a_start_on_a_full_disk_says_so(small_disk: Service) -> None:
    service = small_disk
    service.stop()
    for file in (service.directory / "data").iterdir():
        if file.is_file():
            file.unlink()
    _fill(service.directory / "data")
    command = [PILOT, "serve", "--port", "0", "--data", str(service.directory / "data")]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False, env=service.environment)
    assert result.returncode == 125, result
    assert "full" in result.stderr or "No space" in result.stderr
    assert "hint:" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_locked_store(own_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    set_e2b(own_service, monkeypatch)
    with Sandbox.create() as sandbox:
        other = sqlite3.connect(own_service.directory / "data" / "service.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        try:
            with pytest.raises(ServiceBusyException, match="another program has the file open"):
                sandbox.set_timeout(100)
            assert sandbox.commands.run("echo works").stdout == "works\n"
        finally:
            other.execute("ROLLBACK")
            other.close()
        sandbox.set_timeout(100)


def test_a_damaged_store_is_refused(own_service: Service) -> None:
    for number in range(50):
        assert own_service.request("POST", "/v1/projects", {"name": f"project-{number}"})[0] in (200, 201)
    own_service.stop()
    file = own_service.directory / "data" / "service.db"
    whole = file.read_bytes()
    assert len(whole) > 3 * 4096
    file.write_bytes(whole[:4096] + b"\xa5" * 4096 + whole[2 * 4096 :])
    command = [PILOT, "serve", "--port", str(own_service.port), "--data", str(own_service.directory / "data")]
    for extra in ([], ["--check"]):
        result = subprocess.run([*command, *extra], capture_output=True, text=True, timeout=30, check=False, env=own_service.environment)
        assert result.returncode in (1, 125), result
        said = result.stdout + result.stderr
        assert "service.db" in said
        assert "copy" in said
        assert "Traceback" not in said
    # A copy in its place is all that it takes.
    file.write_bytes(whole)
    own_service.start()
    assert own_service.request("GET", "/v1/projects")[0] == 200
