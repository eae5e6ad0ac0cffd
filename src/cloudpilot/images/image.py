"""What an image says about how it is run, and an image that lies on this host."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from cloudpilot.errors import InvalidArgumentException, NotFoundException
from cloudpilot.images.limits import LARGEST_PASSWD


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """How an image wants to be run.

    Attributes:
        entrypoint: Program and arguments that come first.
        command: What follows them where nothing else is given.
        environment: Variables.
        workdir: Where it begins.
        user: Who it runs as: `NAME[:GROUP]` or `UID[:GID]`; empty is root.
        exposed_ports: Ports that it listens on, like `80/tcp`.
        stop_signal: What asks it to end.
        labels: Notes of its maker.
    """

    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    environment: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = ""
    exposed_ports: list[str] = field(default_factory=list)
    stop_signal: str = "SIGTERM"
    labels: dict[str, str] = field(default_factory=dict)

    def program(self, arguments: list[str], entrypoint: list[str] | None = None) -> list[str]:
        """What to run for these arguments: they take the place of `command`, and `entrypoint` drops the image's own command."""
        result = [*self.entrypoint, *(arguments or self.command)] if entrypoint is None else [*entrypoint, *arguments]
        if not result:
            raise InvalidArgumentException("There is no program to run: the image names none", "give one after the options")
        return result

    def shown(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)

    @classmethod
    def from_oci(cls, given: Any) -> ImageConfig:
        """From the `config` of an OCI image's configuration."""
        if given is None:
            return cls()
        if not isinstance(given, dict):
            raise _malformed("config")
        variables = {}
        for each in _strings(given, "Env"):
            name, equals, value = each.partition("=")
            if not name or not equals:
                raise _malformed("Env")
            variables[name] = value
        for name in ("WorkingDir", "User", "StopSignal"):
            if not isinstance(given.get(name) or "", str) or "\0" in (given.get(name) or ""):
                raise _malformed(name)
        return cls(
            entrypoint=_strings(given, "Entrypoint"),
            command=_strings(given, "Cmd"),
            environment=variables,
            workdir=os.path.normpath("/" + (given.get("WorkingDir") or "/")).replace("//", "/"),
            user=given.get("User") or "",
            exposed_ports=sorted(_table(given, "ExposedPorts")),
            stop_signal=given.get("StopSignal") or "SIGTERM",
            labels={name: str(value) for name, value in _table(given, "Labels").items()},
        )


def _malformed(name: str) -> InvalidArgumentException:
    return InvalidArgumentException(f"The image's configuration is malformed at `{name}`", "the image is damaged: get it again")


def _strings(given: dict[str, Any], name: str) -> list[str]:
    value = given.get(name) or []
    if not isinstance(value, list) or not all(isinstance(each, str) and "\0" not in each for each in value):
        raise _malformed(name)
    return list(value)


def _table(given: dict[str, Any], name: str) -> dict[str, Any]:
    value = given.get(name) or {}
    if not isinstance(value, dict):
        raise _malformed(name)
    return value


@dataclass(frozen=True, slots=True)
class User:
    """Who a program runs as."""

    uid: int
    gid: int
    home: str


@dataclass(frozen=True, slots=True)
class Image:
    """An image on this host.

    Attributes:
        name: What it is called here.
        digest: The digest of its manifest: two images with the same one are the same.
        root: Directory with its files. Not to be written to: images share files.
        config: How it wants to be run.
        created: When it came here, in seconds since 1970.
        size: Bytes of its files.
    """

    name: str
    digest: str
    root: str
    config: ImageConfig
    created: float
    size: int

    def user(self, name: str | None = None) -> User:
        """A user of the image, by name or number; without one, the one that it wants to run as."""
        return resolve_user(self.root, self.config.user if name is None else name)


def resolve_user(root: str, text: str) -> User:
    """Numbers and home of `NAME[:GROUP]` or `UID[:GID]`, by the root's own lists."""
    name, _, group = text.partition(":")
    name = name or "0"
    uid = gid = None
    home = "/"
    for fields in _lines(root, "etc/passwd", 7):
        if name in (fields[0], fields[2]) and fields[2].isdigit() and fields[3].isdigit():
            uid, gid, home = int(fields[2]), int(fields[3]), fields[5] or "/"
            break
    if uid is None:
        if not (name.isascii() and name.isdigit()):
            raise NotFoundException(f"There is no user `{name}` in the image", "name one that there is, or give a number")
        uid, gid, home = int(name), 0, "/root" if name == "0" else "/"
    if group:
        found = next((int(fields[2]) for fields in _lines(root, "etc/group", 3) if fields[0] == group and fields[2].isdigit()), None)
        if found is None and not (group.isascii() and group.isdigit()):
            raise NotFoundException(f"There is no group `{group}` in the image", "name one that there is, or give a number")
        gid = int(group) if found is None else found
    return User(uid, gid or 0, home)


def _lines(root: str, path: str, least: int) -> list[list[str]]:
    from cloudpilot.images.unpack import open_in_root

    handle = os.open(root, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Not blocking: the image may have a FIFO of that name.
        descriptor = open_in_root(handle, path.encode(), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return []
    finally:
        os.close(handle)
    with open(descriptor, "rb") as file:
        try:
            text = file.read(LARGEST_PASSWD) or b""
        except OSError:
            return []
    lines = (line.split(":") for line in text.decode(errors="replace").splitlines())
    return [fields for fields in lines if len(fields) >= least]
