"""Digests: the names of blobs, by which it is checked that they are what they should be."""

from __future__ import annotations

import hashlib
import re
from typing import IO, Any

from cloudpilot.errors import InvalidArgumentException

_LENGTHS = {"sha256": 64, "sha512": 128}
_CHUNK = 1 << 20


def parts(digest: Any) -> tuple[str, str]:
    """Algorithm and digits of a digest; it is not used as a part of a path before this has looked at it."""
    algorithm, _, digits = digest.partition(":") if isinstance(digest, str) else ("", "", "")
    if _LENGTHS.get(algorithm) != len(digits) or not re.fullmatch("[0-9a-f]+", digits):
        raise InvalidArgumentException(f"`{str(digest)[:100]}` is not a digest", "images have digests of sha256 or sha512")
    return algorithm, digits


def of(data: bytes) -> str:
    """The digest of some bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def check(data: bytes, digest: Any, what: str) -> None:
    """Refuses bytes that have another digest."""
    algorithm, digits = parts(digest)
    if hashlib.new(algorithm, data).hexdigest() != digits:
        raise damaged(what, digest)


def damaged(what: str, digest: Any) -> InvalidArgumentException:
    """What is said of a blob that is not what its name says."""
    return InvalidArgumentException(f"{what} is not what its digest `{digest}` says", "the image is damaged: get it again")


class CheckedReader:
    """A blob that is read once from its beginning to its end; `finish` tells whether it was the right one."""

    def __init__(self, file: IO[bytes], digest: Any, size: int | None, what: str) -> None:
        algorithm, self._digits = parts(digest)
        self._file = file
        self._hash = hashlib.new(algorithm)
        self._digest = digest
        self._size = size
        self._what = what
        self.count = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        data = self._file.read(_CHUNK if size < 0 else size)
        self._hash.update(data)
        self.count += len(data)
        if self._size is not None and self.count > self._size:
            raise damaged(self._what, self._digest)
        return data

    def finish(self) -> None:
        """Reads what is left, and refuses what was not what it should be."""
        while self.read(_CHUNK):
            pass
        if self._hash.hexdigest() != self._digits or (self._size is not None and self.count != self._size):
            raise damaged(self._what, self._digest)
