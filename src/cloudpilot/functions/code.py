"""Code of functions: zip archives, looked through before anything of them is written."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import stat
import tempfile
import zipfile

from cloudpilot.functions.errors import FunctionError, invalid

LARGEST_ZIP = 50 << 20
"""Bytes of an archive in a request, as with Lambda."""
LARGEST_UNPACKED = 250 << 20
"""Bytes of what an archive holds, as with Lambda."""
MOST_FILES = 20_000
_CHUNK = 1 << 20


class Codes:
    """Unpacked code, one directory for each archive, named by its hash."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def path(self, digest: str) -> str:
        """Where the code of that hash lies."""
        return os.path.join(self._directory, digest)

    def put(self, archive: bytes) -> str:
        """Unpacks an archive; answers its hash. Blocks for as long as the disk takes."""
        if len(archive) > LARGEST_ZIP:
            raise FunctionError("RequestTooLargeException", f"The archive has more than {LARGEST_ZIP} bytes")
        digest = hashlib.sha256(archive).hexdigest()
        if os.path.isdir(self.path(digest)):
            return digest
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        fresh = tempfile.mkdtemp(dir=self._directory)
        try:
            with zipfile.ZipFile(io.BytesIO(archive)) as opened:
                _unpack(opened, fresh)
            # Sandboxed programs run as any user.
            os.chmod(fresh, 0o755)
            try:
                os.rename(fresh, self.path(digest))
            except OSError:
                if not os.path.isdir(self.path(digest)):
                    raise
        except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError) as error:
            raise invalid(f"Could not unzip uploaded file: {error}") from None
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return digest

    def keep_only(self, digests: set[str]) -> None:
        """Removes what no function refers to."""
        if os.path.isdir(self._directory):
            for name in os.listdir(self._directory):
                if name not in digests:
                    shutil.rmtree(self.path(name), ignore_errors=True)


def _unpack(archive: zipfile.ZipFile, directory: str) -> None:
    entries = archive.infolist()
    if len(entries) > MOST_FILES:
        raise invalid(f"The archive has more than {MOST_FILES} files")
    if not entries:
        raise invalid("Uploaded file must be a non-empty zip")
    left = LARGEST_UNPACKED
    for entry in entries:
        mode = entry.external_attr >> 16
        parts = entry.filename.rstrip("/").split("/")
        if entry.filename.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\\" in entry.filename:
            raise invalid(f"The archive has a file outside of itself: `{entry.filename}`")
        if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise invalid(f"The archive has something that is no file: `{entry.filename}`; links are not followed, put the file itself in")
        place = os.path.join(directory, *parts)
        if entry.is_dir():
            os.makedirs(place, exist_ok=True)
            continue
        os.makedirs(os.path.dirname(place), exist_ok=True)
        # What an archive says of its sizes may be a lie: what comes out is counted.
        with archive.open(entry) as source, open(place, "xb") as target:
            while chunk := source.read(_CHUNK):
                left -= len(chunk)
                if left < 0:
                    raise invalid(f"Unzipped size must be smaller than {LARGEST_UNPACKED} bytes")
                target.write(chunk)
        os.chmod(place, 0o755 if mode & 0o111 else 0o644)
