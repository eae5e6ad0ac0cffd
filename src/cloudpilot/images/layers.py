"""Layers as streams of bytes: decompressed, counted, checked."""

from __future__ import annotations

import importlib
import zlib
from collections.abc import Callable
from typing import Any, Protocol

from cloudpilot.errors import InvalidArgumentException, LimitException, NotFoundException
from cloudpilot.images.digests import CheckedReader
from cloudpilot.images.limits import LARGEST_HEADER

_CHUNK = 256 << 10
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"


class Readable(Protocol):
    """Something that bytes come from."""

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, nothing at the end."""


class _Inflated:
    """What a gzip stream of one or more members holds, never more at once than is asked for."""

    def __init__(self, source: Readable, begun: bytes) -> None:
        self._source = source
        self._waiting = begun
        self._inflate: Any = zlib.decompressobj(wbits=31)

    def read(self, size: int = _CHUNK) -> bytes:
        """The next bytes."""
        while True:
            if self._inflate.eof:
                self._waiting = self._inflate.unused_data or self._source.read(_CHUNK)
                if not self._waiting.strip(b"\0"):
                    return b""
                self._inflate = zlib.decompressobj(wbits=31)
            data: bytes = self._inflate.decompress(self._waiting, size)
            self._waiting = self._inflate.unconsumed_tail
            if data:
                return data
            if not self._waiting and not self._inflate.eof:
                self._waiting = self._source.read(_CHUNK)
                if not self._waiting:
                    raise InvalidArgumentException("A compressed layer ends too early", "the image is damaged: get it again")


def _zstd(source: Readable, begun: bytes) -> Readable:
    for name in ("compression.zstd", "backports.zstd"):
        try:
            # Python has it from 3.14 on.
            zstd: Any = importlib.import_module(name)
            break
        except ImportError:
            continue
    else:
        hint = "install it: `pip install 'cloudpilot[images]'`"
        raise NotFoundException("Layers compressed with zstd need the package `backports.zstd`", hint)
    options = {zstd.DecompressionParameter.window_log_max: _LARGEST_WINDOW}
    result: Readable = zstd.ZstdFile(_Joined(begun, source), options=options)
    return result


_LARGEST_WINDOW = 27
"""128 MiB: what `zstd` itself takes without being asked; a window lies in memory as a whole."""


class _Joined:
    """Bytes that were read already, and then the rest."""

    def __init__(self, begun: bytes, source: Readable) -> None:
        self._begun = begun
        self._source = source

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        if self._begun:
            size = len(self._begun) if size < 0 else size
            data, self._begun = self._begun[:size], self._begun[size:]
            return data
        return self._source.read(size)


class Budget:
    """How much all layers of an image may still unpack to."""

    def __init__(self, size: int, entries: int) -> None:
        self.size = size
        self.entries = entries

    def spend(self, size: int, entries: int = 0) -> None:
        """Takes some; refuses when there is no more."""
        self.size -= size
        self.entries -= entries
        if self.size < 0 or self.entries < 0:
            what = "bytes" if self.size < 0 else "files"
            raise LimitException(
                f"The image unpacks to more {what} than an image may have", "it may be a decompression bomb; use another image"
            )


class LayerStream:
    """A layer's archive, read forwards only, as `tarfile` wants to see a file."""

    def __init__(self, blob: CheckedReader, diff_id: Any, budget: Budget) -> None:
        begun = b""
        # A short read is no end.
        while len(begun) < len(_ZSTD) and (more := blob.read(_CHUNK)):
            begun += more
        source: Readable
        if begun.startswith(_GZIP):
            source = _Inflated(blob, begun)
        elif begun.startswith(_ZSTD):
            source = _zstd(blob, begun)
        else:
            source = _Joined(begun, blob)
        self._blob = blob
        self._plain = CheckedReader(source, diff_id, None, "A layer")  # type: ignore[arg-type]
        self._budget = budget
        self._position = 0
        self._ahead = b""
        self.last_block = b""
        """What was read last: at the end of an archive it is zeros."""

    def read(self, size: int = -1) -> bytes:
        """The next bytes, as many as asked for unless it ends."""
        if not 0 <= size <= LARGEST_HEADER:
            raise LimitException("A layer has an extended header that is too long", "it may mean harm; use another image")
        pieces = []
        missing = size
        while missing > 0:
            if not self._ahead:
                self._ahead = self._next()
                if not self._ahead:
                    break
            piece, self._ahead = self._ahead[:missing], self._ahead[missing:]
            pieces.append(piece)
            missing -= len(piece)
        data = b"".join(pieces)
        self._position += len(data)
        self.last_block = data
        return data

    def _next(self) -> bytes:
        data = _refusing(lambda: self._plain.read(_CHUNK))
        self._budget.spend(len(data))
        return data

    def tell(self) -> int:
        """How much was read."""
        return self._position

    def seek(self, position: int, whence: int = 0) -> int:
        """Skips; there is no way back."""
        while self._position < position and self.read(min(_CHUNK, position - self._position)):
            pass
        if whence or self._position != position:
            raise InvalidArgumentException("A layer's archive ends too early", "the image is damaged: get it again")
        return position

    def finish(self) -> None:
        """Reads to the end, and refuses a layer that is not what its digests say."""
        while self._next():
            pass
        self._plain.finish()
        self._blob.finish()


def _refusing(read: Callable[[], bytes]) -> bytes:
    from cloudpilot.errors import SandboxException

    try:
        return read()
    except (SandboxException, OSError, MemoryError):
        raise
    except Exception as error:  # zlib.error, ZstdError, EOFError: the libraries have little in common
        raise InvalidArgumentException(f"A layer cannot be decompressed: {error}", "the image is damaged: get it again") from None
