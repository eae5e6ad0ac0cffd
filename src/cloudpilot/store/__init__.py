"""What the service remembers: keys with JSON values, written in transactions. `sqlite` keeps it on this host.

The protocol is small enough to be kept by a cluster's store as well: ranges over ordered keys, and transactions that happen only if what
they were decided on is still so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

Value = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with what is stored under it.

    Attributes:
        key: The key.
        value: What is stored.
        revision: The number of the transaction that wrote it last.
    """

    key: str
    value: Value
    revision: int


class StoreError(Exception):
    """The store cannot do its work: the disk is full, the file is damaged, another process holds it.

    Attributes:
        message: What happened, in a sentence.
        hint: What to do about it.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message} ({hint})")
        self.message = message
        self.hint = hint


class ConflictError(StoreError):
    """Somebody else was quicker: what the transaction was decided on is no longer so, and nothing was written."""


class Store(Protocol):
    """Ordered keys with JSON values."""

    def get(self, key: str) -> Entry | None:
        """The entry of that key."""

    def range(self, prefix: str, *, after: str | None = None, limit: int | None = None, newest_first: bool = False) -> list[Entry]:
        """Entries whose keys begin so, in the order of their keys; `after` is the key before the first one wanted."""

    def count(self, prefix: str) -> int:
        """How many keys begin so."""

    def transact(self, writes: Mapping[str, Value | None], checks: Mapping[str, int | None] | None = None) -> int:
        """Writes all (none removes a key) or nothing.

        Args:
            writes: What is to be stored under which key.
            checks: The revisions that keys must still have; none is that there is no such key.

        Returns:
            The transaction's number.

        Raises:
            ConflictError: A check failed.
            StoreError: It could not be written.
        """

    def close(self) -> None:
        """Lets go of it."""
