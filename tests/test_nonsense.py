"""A kernel process that was broken into answers what it likes: whoever asked gets an exception, at once, and nothing else happens."""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from cloudpilot import Sandbox, SandboxException
from cloudpilot.engine import records

Answer = Callable[[dict[str, object]], bytes]


class BrokenSandbox:
    """Something that looks like a sandbox from outside, and answers nonsense."""

    def __init__(self, state: Path, answer: Answer) -> None:
        self.directory = state / "cloudpilot" / "broken"
        self.directory.mkdir(parents=True, mode=0o700)
        self._answer = answer
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.bind(str(self.directory / "control.sock"))
        self._socket.listen()
        pid = os.getpid()
        record = {
            "id": "broken", "name": "broken", "args": None, "supervisor_pid": pid, "supervisor_start": records.start_time(pid),
            "kernel_pid": pid, "created": time.time(), "user": 0, "root": "host", "network": "none", "cgroups": [],
        }  # fmt: skip
        (self.directory / "sandbox.json").write_text(json.dumps(record))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        try:
            client, _ = self._socket.accept()
            while text := client.recv(200_000):
                client.send(self._answer(json.loads(text)))
        except OSError:
            pass

    def close(self) -> None:
        self._socket.close()
        for name in ("control.sock", "sandbox.json"):
            (self.directory / name).unlink()
        self.directory.rmdir()


def reply(result: object) -> Answer:
    return lambda request: json.dumps({"id": request["id"], "result": result}).encode()


@pytest.mark.parametrize(
    "answer",
    [
        lambda _: b"{",
        lambda _: b"[1]",
        lambda _: b'{"id": [1]}',
        lambda _: b'{"event": "exited"}',
        lambda _: b'{"event": "file", "watch": {}}',
        lambda request: json.dumps({"id": request["id"], "error": 5}).encode(),
        lambda request: json.dumps({"id": request["id"], "error": {"code": [], "message": {}, "errno": "x"}}).encode(),
        reply(None),
        reply([]),
        reply({"entries": 5}),
        reply({"entries": [{"name": 1}]}),
        reply({"in_descriptor": "x"}),
        reply({"in_descriptor": 1 << 60}),
        reply({"in_descriptor": 5}),
        lambda _: os.urandom(1000),
    ],
)
def test_nonsense_raises(state: Path, answer: Answer) -> None:
    broken = BrokenSandbox(state, answer)
    try:
        sandbox = Sandbox.connect("broken")
        begin = time.monotonic()
        with pytest.raises(SandboxException):
            sandbox.files.list("/", request_timeout=5)
        with pytest.raises(SandboxException):
            sandbox.commands.run("true")
        assert time.monotonic() - begin < 90
        sandbox._session._end(SandboxException("the test is over"))
    finally:
        broken.close()
