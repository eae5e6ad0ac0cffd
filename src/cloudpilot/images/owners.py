"""Whose files are whose, inside.

On the host all files of a root belong to whoever unpacked it, are readable, and never have set-id bits: no other user of the host can use
a program of an image to become somebody, and it works for users who own nothing but themselves. What is different inside stands in a table
beside the root, which the sandbox's kernel reads.

The table is a file: records that end with NUL, each `MODE UID GID PATH`, the mode in octal digits, the path relative to the root.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

FILE_NAME = "cloudpilot-owners"
"""Name of the table; it lies beside the root's directory, never in it."""


class Owner(NamedTuple):
    """Mode, user and group of an entry, inside."""

    mode: int
    uid: int
    gid: int


def host_mode(mode: int, is_directory: bool) -> int:
    """The mode that an entry has on the host: readable for the sandbox, which runs as a user that owns nothing."""
    return 0o755 if is_directory or mode & 0o111 else 0o644


class _Place:
    __slots__ = ("below", "owner")

    def __init__(self) -> None:
        self.owner: Owner | None = None
        self.below: dict[bytes, _Place] = {}


class Owners:
    """The table, while a root is made."""

    def __init__(self) -> None:
        self._top = _Place()

    def set(self, path: bytes, mode: int, uid: int, gid: int, *, is_directory: bool) -> None:
        """Notes an entry, if it is other than it looks on the host."""
        if mode == host_mode(mode, is_directory) and uid == 0 and gid == 0:
            place = self._find(path)
            if place is not None:
                place.owner = None
            return
        place = self._top
        for name in path.split(b"/") if path else []:
            place = place.below.setdefault(name, _Place())
        place.owner = Owner(mode, uid, gid)

    def get(self, path: bytes) -> Owner | None:
        """What is noted of an entry."""
        place = self._find(path)
        return None if place is None else place.owner

    def forget(self, path: bytes) -> None:
        """Forgets an entry that was removed, and everything below it."""
        above, _, name = path.rpartition(b"/")
        place = self._find(above)
        if place is not None:
            place.below.pop(name, None)

    def _find(self, path: bytes) -> _Place | None:
        place: _Place | None = self._top
        for name in path.split(b"/") if path else []:
            if place is None:
                return None
            place = place.below.get(name)
        return place

    def write(self, path: str) -> None:
        """Writes the table."""
        with open(path, "wb") as file:
            waiting: list[tuple[bytes, _Place]] = [(b"", self._top)]
            while waiting:
                name, place = waiting.pop()
                if place.owner is not None:
                    file.write(b"%o %d %d %b\0" % (place.owner.mode, place.owner.uid, place.owner.gid, name))
                waiting += [(name + b"/" + each if name else each, below) for each, below in place.below.items()]

    @classmethod
    def read(cls, path: str) -> Owners:
        """Reads a table that `write` wrote."""
        result = cls()
        with open(path, "rb") as file:
            for record in file.read().split(b"\0")[:-1]:
                mode, uid, gid, name = record.split(b" ", 3)
                place = result._top
                for each in name.split(b"/") if name else []:
                    place = place.below.setdefault(each, _Place())
                place.owner = Owner(int(mode, 8), int(uid), int(gid))
        return result


def root_setting(root: str) -> dict[str, Any]:
    """A directory as the root of a sandbox, with its table if it has one."""
    setting = {"kind": "directory", "path": root}
    table = os.path.join(os.path.dirname(root), FILE_NAME)
    return {**setting, "owners": table} if os.path.exists(table) else setting
