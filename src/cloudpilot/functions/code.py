"""Code of functions: zip archives, looked through before anything of them is written."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import io
import os
import shutil
import stat
import tempfile
import time
import zipfile
import zlib

from cloudpilot.functions.errors import FunctionError, invalid

LARGEST_ZIP = 50 << 20
"""Bytes of an archive in a request, as with Lambda."""
LARGEST_UNPACKED = 250 << 20
"""Bytes of what an archive holds, as with Lambda."""
MOST_FILES = 20_000
"""Files of an archive: each costs the host an inode and a moment, however short it is."""
GRACE = 900.0
"""Seconds that code is kept which nothing refers to: the request that brought it may be about to, and calls under way may use it."""
_CHUNK = 1 << 20
_ARCHIVE = ".zip"


class Codes:
    """Unpacked code, one directory for each archive, named by its hash."""

    def __init__(self, directory: str) -> None:
        self._directory = directory

    def path(self, digest: str) -> str:
        """Where the code of that hash lies."""
        return os.path.join(self._directory, digest)

    def archive(self, digest: str) -> str:
        """Where the archive itself lies, for those who want it back."""
        return self.path(digest) + _ARCHIVE

    def unpacked_size(self, digest: str) -> int:
        """Bytes of what an archive holds. Blocks for as long as the disk takes."""
        with zipfile.ZipFile(self.archive(digest)) as opened:
            return sum(entry.file_size for entry in opened.infolist())

    def put(self, archive: bytes) -> str:
        """Unpacks an archive; answers its hash. Blocks for as long as the disk takes."""
        if len(archive) > LARGEST_ZIP:
            raise FunctionError("RequestTooLargeException", f"The archive has more than {LARGEST_ZIP} bytes")
        digest = hashlib.sha256(archive).hexdigest()
        if os.path.isdir(self.path(digest)) and os.path.exists(self.archive(digest)):
            os.utime(self.path(digest))
            os.utime(self.archive(digest))
            return digest
        os.makedirs(self._directory, mode=0o700, exist_ok=True)
        fresh = tempfile.mkdtemp(dir=self._directory)
        try:
            with zipfile.ZipFile(io.BytesIO(archive)) as opened:
                _unpack(opened, fresh)
            # Sandboxed programs run as any user.
            os.chmod(fresh, 0o755)
            with open(fresh + _ARCHIVE, "xb") as file:
                file.write(archive)
            os.rename(fresh + _ARCHIVE, self.archive(digest))
            try:
                os.rename(fresh, self.path(digest))
            except OSError:
                if not os.path.isdir(self.path(digest)):
                    raise
        except (zipfile.BadZipFile, zipfile.LargeZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error, ValueError) as error:
            raise invalid(f"Could not unzip uploaded file: {error}") from None
        except OSError as error:
            # Two entries of one name, a file that others have as their directory, a name that no file system takes.
            if error.errno not in (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG):
                raise
            raise invalid(f"Could not unzip uploaded file: {error.strerror}") from None
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return digest

    def merged(self, digests: list[str]) -> str:
        """Where what several archives hold lies together; of files of one name the last one counts. Blocks while the disk works."""
        if len(digests) == 1:
            return self.path(digests[0])
        place = self.path(merged_name(digests))
        if not os.path.isdir(place):
            fresh = tempfile.mkdtemp(dir=self._directory)
            try:
                for digest in digests:
                    shutil.copytree(self.path(digest), fresh, copy_function=_link, dirs_exist_ok=True)
                os.chmod(fresh, 0o755)
                with contextlib.suppress(FileExistsError):
                    os.rename(fresh, place)
            except (FileExistsError, IsADirectoryError, NotADirectoryError, shutil.Error):
                raise invalid("A layer has a file where another one has a directory of the same name") from None
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
        return place

    def keep_only(self, digests: set[str]) -> None:
        """Removes what nothing refers to any more. Blocks for as long as the disk takes."""
        if not os.path.isdir(self._directory):
            return
        oldest = time.time() - GRACE
        for entry in os.scandir(self._directory):
            if entry.name.removesuffix(_ARCHIVE) in digests:
                continue
            try:
                if entry.stat(follow_symlinks=False).st_mtime > oldest:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path, ignore_errors=True)
                else:
                    os.unlink(entry.path)
            except FileNotFoundError:
                continue


def merged_name(digests: list[str]) -> str:
    """The name under which several archives lie together."""
    return hashlib.sha256("+".join(digests).encode()).hexdigest()


def _link(source: str, target: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(target)
    os.link(source, target)


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
