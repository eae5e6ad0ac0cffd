"""Sandboxes that run on this host, found by what they tell about themselves in their directories."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import Any

from cloudpilot.engine import paths
from cloudpilot.errors import InvalidArgumentException, NotFoundException


@dataclass(frozen=True, slots=True)
class Record:
    """What a sandbox tells about itself."""

    id: str
    name: str | None
    args: list[str] | None
    supervisor_pid: int
    supervisor_start: int
    kernel_pid: int
    created: float
    user: int
    root: str
    network: str

    @property
    def directory(self) -> str:
        """Its directory on the host."""
        return paths.state_dir(self.id)

    def lives(self) -> bool:
        """Whether the process that watches over it still does; process numbers are used again."""
        return start_time(self.supervisor_pid) == self.supervisor_start


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; none if it is gone or only its parent has not noticed yet."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            # The name may hold anything, parentheses and spaces included.
            fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def read(sandbox_id: str) -> Record | None:
    """A sandbox's record, unless there is none or it is unreadable."""
    try:
        with open(os.path.join(paths.state_dir(sandbox_id), "sandbox.json"), "rb") as file:
            data: dict[str, Any] = json.load(file)
        return Record(**{field: data[field] for field in Record.__slots__})
    except (OSError, ValueError, KeyError, TypeError):
        return None


def exists(sandbox_id: str) -> bool:
    """Whether anything of a sandbox is left."""
    return os.path.exists(paths.state_dir(sandbox_id))


def running() -> list[Record]:
    """All sandboxes of this user that run, the oldest first."""
    try:
        names = os.listdir(paths.state_root())
    except OSError:
        return []
    found = (read(name) for name in names)
    return sorted((record for record in found if record is not None and record.lives()), key=lambda record: record.created)


def find(word: str) -> Record:
    """The sandbox of that name or id, or of an id that begins so."""
    all_of_them = running()
    for record in all_of_them:
        if word in (record.id, record.name):
            return record
    beginning = [record for record in all_of_them if word and record.id.startswith(word)]
    if len(beginning) > 1:
        raise InvalidArgumentException(f"The ids of {len(beginning)} sandboxes begin with `{word}`", "write more of it")
    if not beginning:
        raise NotFoundException(f"No sandbox `{word}` runs", "`pilot ps` lists those that do")
    return beginning[0]


def check_name(name: str) -> None:
    """Refuses a name that a sandbox has already, or that would be taken for an option."""
    if not name or name.startswith("-") or not name.isprintable():
        raise InvalidArgumentException(f"`{name!r}` is not a name", "begin it with a letter or a digit")
    if any(name in (record.name, record.id) for record in running()):
        raise InvalidArgumentException(f"A sandbox called `{name}` runs already", f"end it with `pilot kill {name}`")
