"""The store in one SQLite file, for one service on one host."""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from cloudpilot.store import ConflictError, Entry, StoreError, Value

SCHEMA_VERSION = 1
"""Written into the file; a file of a later version is refused rather than misread."""
_FILE = "service.db"
_LOCK = "lock"
_LAST = "\U0010ffff"
_LOCKED_PATIENCE = 0.25
"""Seconds that a program which has the file open (an administrator's `sqlite3`) may hold us up. Nothing else is served meanwhile."""

T = TypeVar("T")


class SqliteStore:
    """Keys and values in `service.db` of a directory that is this process's alone while it is open."""

    def __init__(self, directory: str) -> None:
        self.path = os.path.join(directory, _FILE)
        try:
            os.makedirs(directory, mode=0o700, exist_ok=True)
            self._lock = os.open(os.path.join(directory, _LOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            hint = "choose a directory of your own with `--data`"
            raise StoreError(f"Cannot use the directory `{directory}`: {error.strerror}", hint) from None
        try:
            self._take_lock(directory)
            self._connection = self._do(self._open)
        except BaseException:
            os.close(self._lock)
            raise

    def _take_lock(self, directory: str) -> None:
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(self._lock, 32, 0).decode(errors="replace").strip() or "unknown"
            raise StoreError(
                f"Another service (process {holder}) uses the directory `{directory}`", "stop that one, or choose another with `--data`"
            ) from None
        try:
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            raise StoreError(f"Cannot write in the directory `{directory}`: {error.strerror}", "make room there") from None

    def _open(self) -> sqlite3.Connection:
        # It holds names of keys and what programs were given: nobody else's business.
        os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        connection = sqlite3.connect(self.path, timeout=_LOCKED_PATIENCE, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        # What a killed process has committed is in the log; only the loss of power may cost the last moments.
        connection.execute("PRAGMA synchronous = NORMAL")
        found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            connection.close()
            raise sqlite3.DatabaseError(f"the file is malformed: {found}")
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            connection.close()
            raise StoreError(f"`{self.path}` was written by a later version of Cloudpilot", "use that version, or another `--data`")
        connection.execute(
            "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, value TEXT NOT NULL, revision INTEGER NOT NULL) WITHOUT ROWID"
        )
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        self._revision: int = connection.execute("SELECT coalesce(max(revision), 0) FROM entries").fetchone()[0]
        return connection

    def _do(self, action: Callable[[], T]) -> T:
        try:
            return action()
        except sqlite3.DatabaseError as error:
            text = str(error)
            hints = {
                "full": "make room; nothing was lost",
                "locked": "another program has the file open: close it",
                "malformed": "put a copy of the file in its place, or move it away to begin anew",
                "not a database": "put a copy of the file in its place, or move it away to begin anew",
                "disk I/O": "look at the disk and at the kernel's log",
                "readonly": "let the service's user write there",
            }
            hint = next((hint for part, hint in hints.items() if part in text), None)
            raise StoreError(f"The store `{self.path}` failed: {text}", hint) from None
        except OSError as error:
            raise StoreError(f"Cannot open `{self.path}`: {error.strerror}", "let the service's user write there") from None

    def get(self, key: str) -> Entry | None:
        """The entry of that key."""
        query = "SELECT key, value, revision FROM entries WHERE key = ?"
        row: tuple[Any, ...] | None = self._do(lambda: self._connection.execute(query, (key,)).fetchone())
        return None if row is None else _entry(row)

    def range(self, prefix: str, *, after: str | None = None, limit: int | None = None, newest_first: bool = False) -> list[Entry]:
        """Entries whose keys begin so, in the order of their keys; `after` is the key before the first one wanted."""
        first, last = prefix, prefix + _LAST
        if after is not None and newest_first:
            last = after
        query = "SELECT key, value, revision FROM entries WHERE key >= ? AND key < ? AND key > ? ORDER BY key"
        query += " DESC LIMIT ?" if newest_first else " LIMIT ?"
        above = after if after is not None and not newest_first else ""
        parameters = (first, last, above, -1 if limit is None else limit)
        return [_entry(row) for row in self._do(lambda: self._connection.execute(query, parameters).fetchall())]

    def count(self, prefix: str) -> int:
        """How many keys begin so."""
        query = "SELECT count(*) FROM entries WHERE key >= ? AND key < ?"
        return int(self._do(lambda: self._connection.execute(query, (prefix, prefix + _LAST)).fetchone())[0])

    def transact(self, writes: Mapping[str, Value | None], checks: Mapping[str, int | None] | None = None) -> int:
        """Writes all or nothing; see `Store`."""
        return self._do(lambda: self._transact(writes, checks or {}))

    def _transact(self, writes: Mapping[str, Value | None], checks: Mapping[str, int | None]) -> int:
        run = self._connection.execute
        run("BEGIN IMMEDIATE")
        try:
            for key, revision in checks.items():
                row = run("SELECT revision FROM entries WHERE key = ?", (key,)).fetchone()
                if (None if row is None else row[0]) != revision:
                    raise ConflictError(f"`{key}` was changed meanwhile", "look again, and decide again")
            number = self._revision + 1
            for key, value in writes.items():
                if value is None:
                    run("DELETE FROM entries WHERE key = ?", (key,))
                else:
                    run("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", (key, json.dumps(value, separators=(",", ":")), number))
            run("COMMIT")
        except BaseException:
            if self._connection.in_transaction:
                run("ROLLBACK")
            raise
        self._revision = number
        return number

    def close(self) -> None:
        """Lets go of it."""
        self._connection.close()
        os.close(self._lock)


def _entry(row: tuple[Any, ...]) -> Entry:
    return Entry(row[0], json.loads(row[1]), row[2])
