"""The control socket for commands that do one thing and end: requests that block, without threads."""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from cloudpilot.engine import packet, records
from cloudpilot.engine.client import connect
from cloudpilot.errors import SandboxEndedException, SandboxException, TimeoutException, from_failure

REQUEST_TIMEOUT = 10.0
"""Seconds that a sandbox may take to answer; it takes microseconds unless the host is overwhelmed."""
_POLL_PAUSE = 0.005


class Connection:
    """A connection to one sandbox."""

    def __init__(self, sandbox_id: str) -> None:
        self.id = sandbox_id
        self._socket = connect(sandbox_id)
        self._number = 0

    def fileno(self) -> int:
        """The descriptor, to be waited for."""
        return self._socket.fileno()

    def send(self, method: str, params: dict[str, Any], descriptors: list[int] | None = None) -> int:
        """Sends a request; answers its number."""
        self._number += 1
        text = packet.encode({"id": self._number, "method": method, "params": params})
        try:
            packet.send(self._socket, text, descriptors or [])
        except OSError:
            raise SandboxEndedException(f"The sandbox `{self.id}` has ended") from None
        return self._number

    def receive(self, timeout: float | None) -> dict[str, Any]:
        """The next message."""
        self._socket.settimeout(timeout)
        try:
            message = packet.receive(self._socket)
        except TimeoutError:
            raise TimeoutException(f"The sandbox `{self.id}` does not answer", "`pilot kill` ends it") from None
        if message is None:
            raise SandboxEndedException(f"The sandbox `{self.id}` has ended")
        return message

    def call(self, method: str, params: dict[str, Any], descriptors: list[int] | None = None) -> Any:
        """Sends a request and waits for its answer."""
        number = self.send(method, params, descriptors)
        while (message := self.receive(REQUEST_TIMEOUT)).get("id") != number:
            pass
        if "error" in message:
            raise from_failure(message["error"])
        return message.get("result")


def end(record: records.Record, timeout: float = REQUEST_TIMEOUT) -> None:
    """Ends a sandbox and waits until nothing of it is left: first by asking, then by force."""
    try:
        Connection(record.id).call("shutdown", {})
    except SandboxEndedException:
        pass
    except SandboxException:
        # It does not answer: its watchers clean up after it.
        if record.lives():
            os.kill(record.supervisor_pid, signal.SIGKILL)
    deadline = time.monotonic() + timeout
    while record.lives() or os.path.exists(record.directory):
        if time.monotonic() > deadline:
            raise TimeoutException(f"The sandbox `{record.id}` has not ended within {timeout:g} s", "try again")
        time.sleep(_POLL_PAUSE)
