"""Servers that are measured: `pilot serve`, and the simplest ones of the same make that could stand in for it."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

BARE, SPAWNING = "bare server", "subprocess"
NOOP = "def handler(event, context):\n    return event\n"
_PATIENCE = 60.0
_PILOT = Path(sys.executable).parent / "pilot"


class Cloud:
    """A running `pilot serve` with a directory of its own."""

    def __init__(self, directory: str) -> None:
        self._directory = Path(directory)
        self._environment = {**os.environ, "XDG_RUNTIME_DIR": str(self._directory / "run")}
        (self._directory / "run").mkdir()
        command = [_PILOT, "serve", "--port", "0", "--data", str(self._directory / "data")]
        with (self._directory / "log").open("w") as errors:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=self._environment)
        assert self.process.stdout is not None
        found = re.search(r":(\d+)$", self.process.stdout.readline().strip())
        if found is None:
            raise RuntimeError((self._directory / "log").read_text()[-1000:])
        self.port = int(found[1])
        self.key = self.process.stdout.readline().split()[-1]

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"

    def ask(self, path: str, key: str | None = None, body: Any = None) -> Any:
        """One request to its own API."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"X-API-Key": key or self.key})
        with urllib.request.urlopen(request, timeout=_PATIENCE) as answer:
            return json.loads(answer.read())

    def lambda_client(self, key: str | None = None) -> Any:
        """AWS's client of it."""
        import boto3
        from botocore.config import Config

        pair = self.ask("/v1/credentials", key)
        return boto3.client(
            "lambda",
            endpoint_url=self.url,
            region_name="local",
            aws_access_key_id=pair["access_key_id"],
            aws_secret_access_key=pair["secret_access_key"],
            config=Config(retries={"max_attempts": 0}, read_timeout=_PATIENCE),
        )

    def call_request(self, name: str, payload: bytes = b"{}", key: str | None = None) -> bytes:
        """A signed request that calls a function; it holds for a quarter of an hour."""
        from botocore.auth import SigV4Auth
        from botocore.awsrequest import AWSRequest
        from botocore.credentials import Credentials

        pair = self.ask("/v1/credentials", key)
        path = f"/2015-03-31/functions/{name}/invocations"
        request = AWSRequest("POST", self.url + path, {"Host": f"127.0.0.1:{self.port}"}, payload)
        SigV4Auth(Credentials(pair["access_key_id"], pair["secret_access_key"]), "lambda", "local").add_auth(request)
        headers = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
        return f"POST {path} HTTP/1.1\r\n{headers}Content-Length: {len(payload)}\r\n\r\n".encode() + payload

    def set_e2b(self) -> None:
        """Tells E2B's client in this process where it is."""
        os.environ.update(E2B_API_KEY=self.key, E2B_API_URL=self.url, E2B_SANDBOX_URL=self.url)

    def close(self) -> None:
        """Ends it, and its sandboxes."""
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(_PATIENCE)
        if self.process.stdout is not None:
            self.process.stdout.close()
        subprocess.run([_PILOT, "kill", "--all"], env=self._environment, capture_output=True, check=False, timeout=_PATIENCE)


@contextlib.contextmanager
def cloud() -> Iterator[Cloud]:
    """A running `pilot serve`."""
    # Names of sockets must be short.
    directory = tempfile.mkdtemp(prefix="cpb-")
    try:
        running = Cloud(directory)
        try:
            yield running
        finally:
            running.close()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@dataclass(frozen=True)
class Plain:
    """A running server of `bench.plain_server`."""

    port: int
    pid: int


@contextlib.contextmanager
def plain(name: str) -> Iterator[Plain]:
    """A server of `bench.plain_server`."""
    command = [sys.executable, "-m", "bench.plain_server", name]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            raise RuntimeError("the plain server does not start")
        yield Plain(int(line), process.pid)
    finally:
        process.terminate()
        process.wait(_PATIENCE)
        if process.stdout is not None:
            process.stdout.close()


def archive(code: str) -> bytes:
    """A function's code as it is sent."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as opened:
        opened.writestr("app.py", code)
    return buffer.getvalue()


def make_function(client: Any, name: str, code: str = NOOP, **more: Any) -> None:
    """Makes a function."""
    given = {"Runtime": "python3.11", "Handler": "app.handler", "Role": "arn:aws:iam::000000000000:role/any", "Timeout": 30, **more}
    client.create_function(FunctionName=name, Code={"ZipFile": archive(code)}, **given)


def plain_request(payload: bytes = b"{}") -> bytes:
    """A request for the plain servers."""
    return b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n%b" % (len(payload), payload)


def wait_until(condition: Any, what: str) -> None:
    """Waits until something is so."""
    deadline = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not happen in time")
        time.sleep(0.02)
