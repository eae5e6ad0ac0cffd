"""Sandboxes that outlive the process that starts them; whoever comes later finds them by their records."""

from __future__ import annotations

import os
import signal
from typing import Any

from cloudpilot.engine import records
from cloudpilot.engine.wall import Life
from cloudpilot.errors import SandboxEndedException, SandboxException


class DetachedLife(Life):
    """A sandbox that this process started, and that goes on without it; while `waiting`, until it is put to use, it does not."""

    def __init__(self, settings: dict[str, Any], *, waiting: bool = False) -> None:
        self._waiting = waiting
        super().__init__(settings if waiting else {**settings, "detach": True})

    def put_to_use(self, timeout_ms: int) -> None:
        """Lets a sandbox that waited outlive this process from now on, for that long."""
        try:
            self.hand_out(detach=True, timeout_ms=timeout_ms)
        except OSError:
            raise SandboxEndedException(f"The sandbox `{self.id}` has ended") from None
        self._waiting = False

    def end(self, error: SandboxException) -> None:
        """Ends the sandbox. `error` is what those get who use it nevertheless; `gone` tells when nothing of it is left."""
        if self._waiting:
            super().end(error)
            return
        with self._lock:
            if self._end is None:
                self._end = error
        if not self.gone.settled:
            try:
                os.kill(self._pid, signal.SIGTERM)
            except ProcessLookupError:
                pass


def end(record: records.Record) -> None:
    """Tells the supervisor of a sandbox that another process started to end it; returns at once."""
    try:
        process = os.pidfd_open(record.supervisor_pid)
    except ProcessLookupError:
        return
    try:
        # The number may have gone to another process since the record was written.
        if record.lives():
            signal.pidfd_send_signal(process, signal.SIGTERM)
    except ProcessLookupError:
        pass
    finally:
        os.close(process)
