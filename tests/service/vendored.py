"""Packages as people put them into archives: with all that they need."""

from __future__ import annotations

import re
from importlib import metadata


def vendored(name: str, seen: set[str] | None = None) -> dict[str, str | bytes]:
    """A package's files, and those of the packages that it needs."""
    seen = set() if seen is None else seen
    key = re.sub(r"[-_.]+", "-", name).lower()
    if key in seen:
        return {}
    seen.add(key)
    try:
        found = metadata.distribution(name)
    except metadata.PackageNotFoundError:
        return {}  # It is needed on other systems only.
    files: dict[str, str | bytes] = {}
    for path in found.files or ():
        if ".." not in path.parts and "__pycache__" not in path.parts and not path.is_absolute():
            files[str(path)] = path.locate().read_bytes()
    for requirement in found.requires or ():
        if "extra ==" not in requirement:
            files |= vendored(re.split(r"[ ;<>=!~\[(]", requirement, maxsplit=1)[0], seen)
    return files
