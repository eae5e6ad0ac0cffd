"""What happens in a sandbox, as JSON lines in a file of its own: kept over restarts, for some time after its end, and never much of it."""

from __future__ import annotations

import json
import os
import re
import time
from typing import Any

LARGEST_FILE = 1 << 20
"""Bytes of a log before it is put aside; of one sandbox there are at most two files. A start command may print without end."""
LONGEST_LINE = 4096
"""Characters of a message."""
MOST_ENDED = 1000
"""Logs of sandboxes that have ended which are kept, the newest."""
LONGEST_KEPT = 7 * 24 * 3600
"""Seconds that they are kept."""
_ID = re.compile("[a-z0-9]{1,64}")
LEVELS = ("debug", "info", "warn", "error")


class SandboxLog:
    """One sandbox's log."""

    def __init__(self, directory: str, sandbox_id: str, project: str) -> None:
        self._path = os.path.join(directory, f"{sandbox_id}.log")
        self._project = project
        self._size: int | None = None

    def note(self, level: str, message: str, **fields: Any) -> None:
        """Writes a line. A disk that is full costs the line, nothing more."""
        value = {
            "time": round(time.time(), 3),
            "level": level,
            "message": message[:LONGEST_LINE],
            "fields": fields,
            "project": self._project,
        }
        data = json.dumps(value, default=str).encode() + b"\n"
        try:
            if self._size is None:
                os.makedirs(os.path.dirname(self._path), mode=0o700, exist_ok=True)
                self._size = os.path.getsize(self._path) if os.path.exists(self._path) else 0
            if self._size + len(data) > LARGEST_FILE:
                os.replace(self._path, f"{self._path}.1")
                self._size = 0
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                self._size += os.write(descriptor, data)
            finally:
                os.close(descriptor)
        except OSError:
            self._size = None


def read(directory: str, sandbox_id: str, project: str) -> list[dict[str, Any]] | None:
    """All lines of a sandbox's log, the oldest first; none if the project has no such sandbox."""
    if not _ID.fullmatch(sandbox_id):
        return None
    found: list[dict[str, Any]] = []
    exists = False
    for suffix in (".log.1", ".log"):
        try:
            with open(os.path.join(directory, sandbox_id + suffix), "rb") as file:
                lines = file.read().splitlines()
        except FileNotFoundError:
            continue
        for line in lines:
            try:
                value = json.loads(line)
            except ValueError:
                continue  # The host went down in the middle of it.
            exists = True
            if value.pop("project", None) != project:
                return None
            found.append(value)
    return found if exists else None


def forget_old(directory: str, alive: set[str]) -> None:
    """Removes logs of sandboxes that ended long ago, or that too many have followed."""
    ended: dict[str, float] = {}
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                name = entry.name.partition(".")[0]
                if name not in alive:
                    ended[name] = max(ended.get(name, 0.0), entry.stat().st_mtime)
    except FileNotFoundError:
        return
    newest = sorted(ended, key=lambda name: ended[name], reverse=True)
    for index, name in enumerate(newest):
        if index >= MOST_ENDED or time.time() - ended[name] > LONGEST_KEPT:
            for suffix in (".log", ".log.1"):
                try:
                    os.unlink(os.path.join(directory, name + suffix))
                except FileNotFoundError:
                    pass
