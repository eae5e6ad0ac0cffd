"""The service dies and comes back: sandboxes go on, nothing is forgotten, nothing is left over."""

from __future__ import annotations

import io
import os
import signal
import socket
import sqlite3
import subprocess
import threading
import time
import zipfile
from pathlib import Path

import boto3
import pytest
from e2b import NotFoundException, Sandbox
from running_service import PILOT, Service, set_e2b


def _eventually(condition) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_sandboxes_are_adopted(own_service: Service, monkeypatch: pytest.MonkeyPatch, how: int) -> None:
    set_e2b(own_service, monkeypatch)
    sandbox = Sandbox.create(timeout=300, metadata={"kept": "yes"}, envs={"A": "still"})
    sandbox.files.write("/tmp/state", "kept")
    running = sandbox.commands.run("until test -e /tmp/go; do sleep 0.1; done; exit 5", background=True)
    running.disconnect()
    short = Sandbox.create(timeout=12)
    status = own_service.stop(how)
    assert how == signal.SIGKILL or status == 0
    assert len(own_service.sandboxes_left()) == 2
    time.sleep(0.3)
    own_service.start()
    info = sandbox.get_info()
    assert info.metadata == {"kept": "yes"}
    assert sandbox.files.read("/tmp/state") == "kept"
    assert sandbox.commands.run("echo $A").stdout == "still\n"
    again = sandbox.commands.connect(running.pid)
    sandbox.files.write("/tmp/go", "")
    with pytest.raises(Exception, match="exit"):
        again.wait()
    # Its deadline passed, or passes now.
    _eventually(lambda: not short.is_running())
    assert sandbox.kill()
    _eventually(lambda: own_service.sandboxes_left() == [])


def test_what_ended_meanwhile_is_forgotten(own_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    set_e2b(own_service, monkeypatch)
    sandbox = Sandbox.create()
    own_service.stop(signal.SIGKILL)
    subprocess.run([PILOT, "kill", "--all"], check=True, timeout=30, env=own_service.environment, capture_output=True)
    own_service.start()
    with pytest.raises(NotFoundException):
        sandbox.get_info()
    again = Sandbox.create()
    subprocess.run([PILOT, "kill", again.sandbox_id], check=True, timeout=30, env=own_service.environment, capture_output=True)
    _eventually(lambda: not again.is_running())
    assert Sandbox.list().next_items() == []


def test_a_kill_while_sandboxes_start_leaves_no_orphan(own_service: Service) -> None:
    body = b'{"templateID":"base"}'
    head = f"POST /v2/sandboxes HTTP/1.1\r\nHost: x\r\nX-API-Key: {own_service.key}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    connections = [socket.create_connection(("127.0.0.1", own_service.port)) for _ in range(6)]
    for connection in connections:
        connection.sendall(head + body)
    time.sleep(0.03)
    own_service.stop(signal.SIGKILL)
    for connection in connections:
        connection.close()
    own_service.start()
    time.sleep(1)
    _, listed = own_service.request("GET", "/v2/sandboxes")
    # Those that had been ready go on; of the others nothing is left.
    _eventually(lambda: own_service.sandboxes_left() == sorted(each["sandboxID"] for each in listed))


def test_accepted_calls_outlive_the_service(own_service: Service) -> None:
    _, pair = own_service.request("GET", "/v1/credentials")
    client = boto3.client(
        "lambda",
        endpoint_url=own_service.url,
        region_name="local",
        aws_access_key_id=pair["access_key_id"],
        aws_secret_access_key=pair["secret_access_key"],
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("app.py", "import time\ndef handler(event, context):\n    time.sleep(2)\n    print('served', event)\n")
    client.create_function(
        FunctionName="f", Runtime="python3.11", Handler="app.handler", Role="r", Timeout=10, Code={"ZipFile": buffer.getvalue()}
    )
    client.invoke(FunctionName="f", InvocationType="Event", Payload=b'{"number":42}')
    time.sleep(0.5)
    own_service.stop(signal.SIGKILL)

    def waiting() -> int:
        with sqlite3.connect(own_service.directory / "data" / "service.db") as store:
            return int(store.execute("SELECT count(*) FROM entries WHERE key LIKE 'events/%'").fetchone()[0])

    assert waiting() == 1
    own_service.start()
    _eventually(lambda: waiting() == 0)
    # The instance that was cut off is gone; the new one waits for its next call.
    _eventually(lambda: len(own_service.sandboxes_left()) == 1)
    own_service.stop()
    _eventually(lambda: own_service.sandboxes_left() == [])


def test_clear_errors_at_the_start(own_service: Service, tmp_path: Path) -> None:
    def refused(*arguments: object) -> str:
        result = subprocess.run([PILOT, "serve", *map(str, arguments)], capture_output=True, text=True, timeout=30, check=False)
        assert result.returncode == 125, result
        return result.stderr

    data = own_service.directory / "data"
    assert "Another service" in refused("--data", data, "--port", 0)
    assert "--port" in refused("--data", tmp_path / "other", "--port", own_service.port)
    assert "TLS" in refused("--data", tmp_path / "other", "--port", 0, "--certificate", "/etc/hostname")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "service.db").write_bytes(b"this is no database" * 1000)
    text = refused("--data", broken, "--port", 0)
    assert "service.db" in text
    assert "hint:" in text
    checked = subprocess.run(
        [PILOT, "serve", "--check", "--data", tmp_path / "c", "--port", "0"], capture_output=True, text=True, timeout=60, check=False
    )
    assert checked.returncode == 0, checked
    assert "ok   port" in checked.stdout
    (data / "service.db").stat()
    assert (os.stat(data / "service.db").st_mode & 0o077) == 0


def test_keys_are_kept_hashed_and_shown_once(own_service: Service) -> None:
    assert own_service.key.startswith("e2b_")
    for file in (own_service.directory / "data").glob("service.db*"):
        assert own_service.key.encode() not in file.read_bytes()
    own_service.stop()
    own_service.start()
    assert own_service.request("GET", "/v1/service")[0] == 200
    assert own_service.key not in own_service.log_text()


def test_it_drains_and_tells_its_manager(own_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    own_service.stop()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(own_service.directory / "notify"))
        manager.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(own_service.directory / "notify"))
        own_service.start()
        assert manager.recv(100) == b"READY=1"
        sandbox = own_service.request("POST", "/v1/sandboxes", {})[1]["id"]
        answers: list[tuple[int, dict[str, str]]] = []

        def ask() -> None:
            answers.append(own_service.request("POST", f"/v1/sandboxes/{sandbox}/commands", {"args": ["sh", "-c", "sleep 2; echo done"]}))

        asker = threading.Thread(target=ask)
        asker.start()
        _eventually(lambda: b"sleep" in subprocess.run([PILOT, "exec", sandbox, "ps", "ax"], capture_output=True, timeout=30,
                                                       check=False, env=own_service.environment).stdout)  # fmt: skip
        assert own_service.stop(signal.SIGTERM) == 0
        asker.join(20)
        assert manager.recv(100) == b"STOPPING=1"
    [(status, answer)] = answers
    assert (status, answer["stdout"]) == (200, "done\n")
    own_service.start()
    assert own_service.request("DELETE", f"/v1/sandboxes/{sandbox}")[0] == 204
