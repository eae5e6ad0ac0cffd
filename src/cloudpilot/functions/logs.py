"""What functions write, on the host's disk: the newest of it, in files that never grow.

A function's log is a row of files that are called by the position of their first byte, so that a position names the same place for ever,
and the oldest file can go without anybody noticing but those who read very slowly. Each line is a JSON object: when, which version, what.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import time
from collections import OrderedDict
from collections.abc import Callable
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudpilot.functions.records import Function

LARGEST_FILE = 4 << 20
"""Bytes of a file, after which another one is begun."""
MOST_FILES = 4
"""Files that are kept of a function."""
MOST_BUFFERED = 1 << 20
"""Bytes of a function that wait to be written; what is more is written at once."""
MOST_OPEN = 64
"""Files that are kept open: those of the functions that wrote last."""
_FLUSH_PAUSE = 0.2
_LONGEST_TEXT = 64 << 10
_SUFFIX = ".log"


class _Log:
    """One function's log."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.buffer = bytearray()
        self.news = asyncio.Event()
        os.makedirs(directory, mode=0o700, exist_ok=True)
        starts = _starts(directory)
        self._start = starts[-1] if starts else 0
        self._file: int | None = None
        self._open()

    def _open(self) -> None:
        self.close()
        path = os.path.join(self.directory, f"{self._start:020d}{_SUFFIX}")
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._file).st_size

    def flush(self) -> None:
        """Writes what waits."""
        if not self.buffer:
            return
        data, self.buffer = bytes(self.buffer), bytearray()
        if self._size and self._size + len(data) > LARGEST_FILE:
            self._start += self._size
            self._open()
            for start in _starts(self.directory)[:-MOST_FILES]:
                os.unlink(os.path.join(self.directory, f"{start:020d}{_SUFFIX}"))
        assert self._file is not None
        # Of a full disk the writer hears; the rest of what waited is lost, and nothing else is.
        self._size += os.write(self._file, data)
        self.news.set()
        self.news = asyncio.Event()

    def close(self) -> None:
        """Lets go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


class Logs:
    """All functions' logs."""

    def __init__(self, directory: str, exists: Callable[[str, str], bool]) -> None:
        self._directory = directory
        self._exists = exists
        self._open: OrderedDict[tuple[str, str], _Log] = OrderedDict()
        self._timer: asyncio.TimerHandle | None = None

    def write(self, function: Function, data: bytes) -> None:
        """Takes what a function has written; it is on the disk a moment later."""
        log = self._log(function.project, function.name)
        if log is None:
            return
        now = round(time.time(), 3)
        text = data.decode("utf-8", "replace")
        for start in range(0, len(text), _LONGEST_TEXT):
            # By hand: this is done for every call, and an encoder is made anew each time that it is told of separators.
            quoted = encode_basestring_ascii(text[start : start + _LONGEST_TEXT])
            log.buffer += f'{{"time":{now},"version":"{function.version}","text":{quoted}}}\n'.encode()
        if len(log.buffer) > MOST_BUFFERED:
            log.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_PAUSE, self._flush)

    def _flush(self) -> None:
        self._timer = None
        for log in self._open.values():
            log.flush()

    def _log(self, project: str, name: str) -> _Log | None:
        log = self._open.get((project, name))
        if log is None:
            # What a function's last calls write after it was removed is for nobody.
            if not self._exists(project, name):
                return None
            log = self._open[project, name] = _Log(os.path.join(self._directory, project, name))
            if len(self._open) > MOST_OPEN:
                _, oldest = self._open.popitem(last=False)
                oldest.flush()
                oldest.close()
        else:
            self._open.move_to_end((project, name))
        return log

    def close(self) -> None:
        """Writes what waits."""
        if self._timer is not None:
            self._timer.cancel()
        for log in self._open.values():
            log.flush()
            log.close()
        self._open.clear()

    def remove(self, project: str, name: str) -> None:
        """Removes a function's log."""
        log = self._open.pop((project, name), None)
        if log is not None:
            log.news.set()
            log.close()
        shutil.rmtree(os.path.join(self._directory, project, name), ignore_errors=True)

    def read(self, project: str, name: str, after: int | None, most: int) -> tuple[list[dict[str, Any]], int]:
        """Entries from a position on, or the newest ones if none is given; and the position behind them."""
        log = self._open.get((project, name))
        if log is not None:
            log.flush()
        directory = os.path.join(self._directory, project, name)
        starts = _starts(directory)
        if after is None:
            return _newest(directory, starts, most)
        entries: list[dict[str, Any]] = []
        position = max(after, starts[0] if starts else 0)
        for index, start in enumerate(starts):
            if index + 1 < len(starts) and starts[index + 1] <= position:
                continue
            with open(os.path.join(directory, f"{start:020d}{_SUFFIX}"), "rb") as file:
                file.seek(max(0, position - start))
                position = max(position, start)
                for line in file:
                    if len(entries) >= most or not line.endswith(b"\n"):
                        return entries, position
                    position += len(line)
                    entry = _entry(line)
                    if entry is not None:
                        entries.append(entry)
        return entries, position

    async def wait(self, project: str, name: str, seconds: float) -> None:
        """Waits until a function writes something, or the time is up."""
        log = self._log(project, name)
        try:
            async with asyncio.timeout(seconds):
                if log is not None:
                    await log.news.wait()
        except TimeoutError:
            pass


def _newest(directory: str, starts: list[int], most: int) -> tuple[list[dict[str, Any]], int]:
    lines: list[bytes] = []
    end = 0
    for start in reversed(starts):
        with open(os.path.join(directory, f"{start:020d}{_SUFFIX}"), "rb") as file:
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        end = end or start + len(whole)
        lines = [*whole.splitlines(), *lines][-most:]
        if len(lines) >= most:
            break
    return [entry for entry in map(_entry, lines) if entry is not None], end


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None  # The disk was full in the middle of it, or somebody asked for a position within it.
    return entry if isinstance(entry, dict) else None


def _starts(directory: str) -> list[int]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(int(name.removesuffix(_SUFFIX)) for name in names if name.removesuffix(_SUFFIX).isdigit())
