"""Root directories as layers."""

from __future__ import annotations

import os
import tarfile

from cloudpilot.errors import InvalidArgumentException

_NOT_OURS = ("proc", "sys", "dev", "run")
"""What a running system has there belongs to its kernel."""


def as_layer(path: str, target: str) -> str:
    """An archive of a root directory, or the archive itself if it is one already. Answers where it is."""
    if not os.path.isdir(path):
        return path
    if not os.path.isdir(os.path.join(path, "bin")) and not os.path.isdir(os.path.join(path, "usr")) and not os.listdir(path):
        raise InvalidArgumentException(f"The directory `{path}` is empty", "give one that holds a Linux file system")
    with tarfile.open(target, "w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, path, "")
    return target


def _add(archive: tarfile.TarFile, directory: str, above: str) -> None:
    for entry in sorted(os.scandir(directory), key=lambda each: each.name):
        name = f"{above}{entry.name}"
        member = archive.gettarinfo(entry.path, arcname=name)
        if member is None:
            continue  # A socket: nobody listens on it elsewhere.
        if not member.isreg():
            archive.addfile(member)
        else:
            with open(entry.path, "rb") as file:
                archive.addfile(member, file)
        if member.isdir() and name not in _NOT_OURS:
            _add(archive, entry.path, f"{name}/")
