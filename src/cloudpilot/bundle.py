"""Archives of code: the same files make the same archive, so that what has not changed is not sent again."""

from __future__ import annotations

import io
import os
import stat
import zipfile
from collections.abc import Mapping

from cloudpilot.errors import InvalidArgumentException, LimitException, NotFoundException

LARGEST = 50 << 20
"""Bytes of an archive, as the service takes them."""
SKIPPED = frozenset(("__pycache__", ".git", ".venv", "node_modules", ".mypy_cache", ".pytest_cache", ".ruff_cache"))
"""Directories that are made anew where they are needed, or are not for running at all."""
_EPOCH = (1980, 1, 1, 0, 0, 0)


def archive_of(path: str) -> tuple[bytes, str | None]:
    """The archive of a directory, of a file, or the one that the path itself is; and the module's name, if it is a Python file."""
    if os.path.isdir(path):
        return zipped(files_below(path)), None
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        raise NotFoundException(f"There is no `{path}`", "give a directory, a zip archive or a file") from None
    if len(data) > LARGEST:
        raise LimitException(f"`{path}` has more than {LARGEST >> 20} MiB", "leave out what is not needed to run it, or use an image")
    if zipfile.is_zipfile(io.BytesIO(data)):
        return data, None
    name = os.path.basename(path)
    module = name.removesuffix(".py") if name.endswith(".py") else None
    return zipped({name: (data, os.stat(path).st_mode)}), module


def files_below(directory: str, prefix: str = "") -> dict[str, tuple[bytes, int]]:
    """Files in a directory and those below, with their modes. Links are followed: archives have none."""
    found: dict[str, tuple[bytes, int]] = {}
    total = 0
    for place, directories, names in os.walk(directory, followlinks=False):
        directories[:] = sorted(name for name in directories if name not in SKIPPED)
        for name in sorted(names):
            path = os.path.join(place, name)
            mode = os.stat(path).st_mode
            if not stat.S_ISREG(mode) or name.endswith(".pyc"):
                continue
            with open(path, "rb") as file:
                data = file.read()
            total += len(data)
            if total > 5 * LARGEST:
                raise LimitException(f"`{directory}` has more than {5 * LARGEST >> 20} MiB", "leave out what is not needed to run it")
            found[os.path.join(prefix, os.path.relpath(path, directory))] = data, mode
    if not found:
        raise InvalidArgumentException(f"There are no files in `{directory}`", "give the directory with the code")
    return found


def zipped(files: Mapping[str, tuple[bytes, int]]) -> bytes:
    """An archive of files, by name with contents and mode."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(files):
            data, mode = files[name]
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (stat.S_IFREG | (0o755 if mode & 0o111 else 0o644)) << 16
            archive.writestr(entry, data)
    if buffer.tell() > LARGEST:
        raise LimitException(f"The archive has more than {LARGEST >> 20} MiB", "leave out what is not needed to run it, or use an image")
    return buffer.getvalue()
