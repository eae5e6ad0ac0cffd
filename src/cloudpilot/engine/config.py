"""What a sandbox is to be, as the binary reads it."""

from __future__ import annotations

import json
import os

from cloudpilot.errors import InvalidArgumentException, LimitException

# The real one would import `typing`, a good part of the start of `pilot run`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ID_LETTERS = "abcdefghijklmnopqrstuvwxyz234567"
_ID_LENGTH = 12
_SIZES = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_DURATIONS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
NETWORKS = ("none", "host")
FEWEST_OPEN_FILES = 64
"""Descriptors of the host that a process must be allowed: with fewer, a sandbox fails somewhere on its way to its first program."""


def new_id() -> str:
    """A name that no other sandbox has: 60 random bits."""
    return "".join(_ID_LETTERS[byte & 31] for byte in os.urandom(_ID_LENGTH))


def default_env(uid: int) -> dict[str, str]:
    """The environment that a program has where none is given."""
    return {"PATH": PATH, "HOME": "/root" if uid == 0 else "/", "LANG": "C.UTF-8"}


def parse_size(text: str | int) -> int:
    """Bytes from `512m`, `1.5g`, `64MiB` or a number."""
    if isinstance(text, int):
        return text
    lower = text.strip().lower()
    digits = lower.rstrip("bikmgt")
    unit = lower[len(digits) :].removesuffix("b").removesuffix("i")
    try:
        value = float(digits) * _SIZES[unit]
        return int(value)
    except (ValueError, KeyError, OverflowError):
        raise InvalidArgumentException(f"`{text}` is not a size", "write it like `512m` or `2g`") from None


def parse_cpus(text: str | float | None) -> float | None:
    """CPUs' worth of time, from `0.5` or `2`."""
    try:
        cpus = None if text is None else float(text)
    except ValueError:
        cpus = -1.0
    if cpus is not None and not 0.01 <= cpus <= 1e6:
        raise InvalidArgumentException(f"The CPU limit `{text}` is not possible", "give at least 0.01 CPUs")
    return cpus


def parse_duration(text: str | float) -> float:
    """Seconds from `1.5`, `10s`, `5m`, `2h`."""
    if not isinstance(text, str):
        return float(text)
    stripped = text.strip().lower()
    digits = stripped.rstrip("mshd")
    try:
        seconds = float(digits) * _DURATIONS[stripped[len(digits) :]]
    except (ValueError, KeyError):
        seconds = -1.0
    if not 0 < seconds < 1e9:
        raise InvalidArgumentException(f"`{text}` is not a duration", "write it like `10`, `1.5s`, `5m` or `2h`")
    return seconds


def parse_volume(text: str) -> dict[str, Any]:
    """A volume from `HOST:GUEST[:ro]`."""
    host, colon, rest = text.partition(":")
    guest, _, mode = rest.partition(":")
    if not host or not colon or not guest or mode not in ("", "ro", "rw"):
        raise InvalidArgumentException(f"`{text}` is not a volume", "write it like `HOST:GUEST` or `HOST:GUEST:ro`")
    return {"host": os.path.abspath(host), "guest": guest, "readonly": mode == "ro"}


def parse_user(text: str) -> dict[str, int]:
    """Numbers from `UID[:GID]`; the group is the user's number if not given."""
    user, colon, group = text.partition(":")
    try:
        uid, gid = int(user), int(group if colon else user)
    except ValueError:
        uid = gid = -1
    if not (0 <= uid < 1 << 32 and 0 <= gid < 1 << 32):
        raise InvalidArgumentException(f"`{text}` is not a user", "write numbers, like `1000` or `1000:1000`")
    return {"uid": uid, "gid": gid}


def parse_variables(texts: list[str]) -> dict[str, str]:
    """Variables from `KEY=VALUE`; `KEY` alone copies this process's, if it has one."""
    result = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key:
            raise InvalidArgumentException(f"`{text}` is not a variable", "write it like `KEY=VALUE`")
        if equals:
            result[key] = value
        elif key in os.environ:
            result[key] = os.environ[key]
    return result


def _check_open_files() -> None:
    import resource

    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed != resource.RLIM_INFINITY and allowed < FEWEST_OPEN_FILES:
        raise LimitException(f"A process here may have {allowed} open files, which is too few for a sandbox", "raise it: `ulimit -n 1024`")


def as_descriptor(config: dict[str, Any]) -> int:
    """The configuration in a memory file, for `--config-fd`; the caller closes it. It is not inherited unless asked for.

    Raises:
        LimitException: This process may have too few open files for a sandbox to start, setrlimit(2).
    """
    _check_open_files()
    text = json.dumps(config).encode()
    descriptor = os.memfd_create("cloudpilot-config")
    with open(descriptor, "wb", closefd=False) as file:
        file.write(text)
    return descriptor
