"""A running service, as tests talk to it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

PILOT = Path(sys.executable).parent / "pilot"
START_PATIENCE = 120.0


@dataclass
class Service:
    """A running `pilot serve`."""

    directory: Path
    port: int = 0
    key: str = ""
    process: subprocess.Popen[str] | None = None
    log: list[str] = field(default_factory=list)
    options: tuple[str, ...] = ()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "XDG_RUNTIME_DIR": str(self.directory / "run")}

    def start(self) -> None:
        """Starts it, again on the same port."""
        (self.directory / "run").mkdir(exist_ok=True)
        errors = (self.directory / "log").open("a")
        command = [PILOT, "serve", "--port", str(self.port), "--data", self.directory / "data", *self.options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=self.environment)
        errors.close()
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        found = re.fullmatch(r"Listening on http://127.0.0.1:(\d+)\n", line)
        assert found, (line, self.log_text())
        self.port = int(found[1])
        if not self.key:
            self.key = self.process.stdout.readline().split()[-1]
        deadline = time.monotonic() + START_PATIENCE
        while self.request("GET", "/health")[0] != 204:
            assert time.monotonic() < deadline, self.log_text()
            time.sleep(0.02)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ends it; sandboxes go on."""
        assert self.process is not None
        self.process.send_signal(number)
        status = self.process.wait(timeout=120)
        if self.process.stdout:
            self.process.stdout.close()
        return status

    def log_text(self) -> str:
        return (self.directory / "log").read_text()

    def request(
        self, method: str, path: str, body: Any = None, key: str | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, Any]:
        """One request; answers status and JSON or text."""
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        known = {"X-API-Key": self.key if key is None else key, **(headers or {})}
        request = urllib.request.Request(self.url + path, data=data, method=method, headers=known)
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                status, text = response.status, response.read()
        except urllib.error.HTTPError as error:
            status, text = error.code, error.read()
        except OSError:
            return 0, None
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text

    def sandboxes_left(self) -> list[str]:
        root = self.directory / "run" / "cloudpilot"
        return sorted(os.listdir(root)) if root.is_dir() else []


def set_e2b(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tells E2B's client where the service is."""
    monkeypatch.setenv("E2B_API_KEY", service.key)
    monkeypatch.setenv("E2B_API_URL", service.url)
    monkeypatch.setenv("E2B_SANDBOX_URL", service.url)
