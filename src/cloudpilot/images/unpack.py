"""Applies layers to a root. Names in them are hostile: the host's kernel walks them beneath the root's own handle, links included."""

from __future__ import annotations

import ctypes
import os
import shutil
import stat
import tarfile
from typing import Any

from cloudpilot.errors import InvalidArgumentException, LimitException, NotEnoughSpaceException, SandboxException
from cloudpilot.images.layers import Budget, LayerStream
from cloudpilot.images.limits import DEEPEST_PATH, LONGEST_PATH
from cloudpilot.images.owners import Owners, host_mode

_CHUNK = 256 << 10
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_SYS_OPENAT2 = 437
_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_IN_ROOT = 0x10
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_MOST_LINKS = 40
"""Links on one path, as Linux has it."""
_LARGEST_ID = (1 << 32) - 1
_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = (("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64))


def open_in_root(root: int, path: bytes, flags: int) -> int:
    """Opens what a process whose root is that directory would open: links and `..` end at it."""
    how = _How(flags | os.O_CLOEXEC, 0, _RESOLVE_IN_ROOT | _RESOLVE_NO_MAGICLINKS)
    descriptor = _libc.syscall(_SYS_OPENAT2, root, ctypes.c_char_p(path or b"."), ctypes.byref(how), ctypes.sizeof(how))
    if descriptor < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), path)
    return int(descriptor)


def parts_of(name: bytes) -> list[bytes]:
    """The components of a name in a layer. Absolute ones begin at the root, as with all tools; `..` is refused."""
    parts = [part for part in name.split(b"/") if part not in (b"", b".")]
    if b".." in parts or b"\0" in name:
        raise _hostile(f"the name {name[:200]!r}, which leads out of it")
    if len(name) > LONGEST_PATH or len(parts) > DEEPEST_PATH or any(len(part) > 255 for part in parts):
        raise _hostile(f"the name {name[:50]!r}…, which is too long")
    return parts


def _hostile(what: str) -> InvalidArgumentException:
    return InvalidArgumentException(f"A layer has {what}", "no honest tool writes that; use another image")


class Unpacker:
    """Makes a root out of layers, in a directory that nobody else looks at yet."""

    def __init__(self, root: str, owners: Owners) -> None:
        self._base = os.fsencode(os.path.realpath(root))
        self._root = os.open(root, _DIRECTORY)
        self._owners = owners
        self._parent: tuple[bytes, bytes, int] | None = None
        self._made: set[bytes] = set()
        self._times: dict[bytes, int] = {}
        self.devices_left_out = 0
        """Device nodes of layers. Sandboxes have a `/dev` of their own, and on a disk of the host they would open the host's devices."""

    def close(self) -> None:
        """Lets go of the root."""
        self._forget_parent()
        os.close(self._root)

    def apply(self, stream: LayerStream, budget: Budget) -> None:
        """Applies one layer, and checks that it was the right one."""
        self._made.clear()
        self._times.clear()
        try:
            # Its list of all members is no attribute that type checkers know.
            archive: Any = tarfile.TarFile(fileobj=stream, mode="r", encoding="utf-8", errors="surrogateescape")  # type: ignore[arg-type]
            with archive:
                while (member := archive.next()) is not None:
                    archive.members.clear()
                    budget.spend(0, 1)
                    self._enter(member, stream, budget)
        except (tarfile.TarError, ValueError, OverflowError) as error:
            raise InvalidArgumentException(f"A layer is not a tar archive: {error}", "the image is damaged: get it again") from None
        except OSError as error:
            raise _of_host(error) from None
        if stream.last_block.strip(b"\0"):
            # `tarfile` takes a header that it cannot read for the end.
            raise InvalidArgumentException("A layer's archive is damaged in the middle", "get the image again")
        stream.finish()
        self._set_times()

    def make_directory(self, path: str) -> None:
        """Makes a directory if it is not there, as programs that begin in it expect."""
        try:
            self._directory(parts_of(os.fsencode(path)))
        except OSError as error:
            raise _of_host(error) from None

    # One entry.

    def _enter(self, member: tarfile.TarInfo, stream: LayerStream, budget: Budget) -> None:
        parts = parts_of(os.fsencode(member.name))
        if not parts:
            if member.isdir():
                self._owners.set(b"", member.mode & 0o7777, member.uid, member.gid, is_directory=True)
            return
        *above, name = parts
        if name.startswith(_WHITEOUT):
            self._white_out(above, name)
            return
        parent, where = self._directory(above)
        path = where + b"/" + name if where else name
        if member.isdir():
            self._make_directory(parent, path, name)
        elif member.isreg() or member.sparse is not None:
            self._replace(parent, path, name)
            self._write(parent, name, member, stream, budget)
        elif member.issym():
            self._replace(parent, path, name)
            os.symlink(os.fsencode(member.linkname), name, dir_fd=parent)
        elif member.islnk():
            self._link(parent, path, name, member)
            return
        elif member.isfifo():
            self._replace(parent, path, name)
            os.mkfifo(name, 0o644, dir_fd=parent)
        elif member.ischr() or member.isblk():
            self._replace(parent, path, name)
            self.devices_left_out += 1
            return
        else:
            raise _hostile(f"an entry of an unknown kind: {member.type!r}")
        self._made.add(path)
        self._describe(parent, path, name, member)

    def _describe(self, parent: int, path: bytes, name: bytes, member: tarfile.TarInfo) -> None:
        time = max(0, int(float(member.mtime) * 1e9))
        uid, gid = member.uid & _LARGEST_ID, member.gid & _LARGEST_ID
        if not member.issym():
            self._owners.set(path, member.mode & 0o7777, uid, gid, is_directory=member.isdir())
        elif uid or gid:
            self._owners.set(path, 0o777, uid, gid, is_directory=False)
        if member.isdir():
            self._times[path] = time
        else:
            os.utime(name, ns=(time, time), dir_fd=parent, follow_symlinks=False)

    def _make_directory(self, parent: int, path: bytes, name: bytes) -> None:
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                self._replace(parent, path, name)
                os.mkdir(name, 0o755, dir_fd=parent)

    def _write(self, parent: int, name: bytes, member: tarfile.TarInfo, stream: LayerStream, budget: Budget) -> None:
        mode = host_mode(member.mode, is_directory=False)
        descriptor = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=parent)
        try:
            # Whatever our own umask is.
            os.fchmod(descriptor, mode)
            stream.seek(member.offset_data)
            if member.sparse is None:
                self._copy(descriptor, stream, 0, member.size)
                return
            budget.spend(member.size)
            pieces: Any = member.sparse
            for offset, size in pieces:
                if not 0 <= offset <= offset + size <= member.size:
                    raise _hostile("a file with holes that lie outside of it")
                self._copy(descriptor, stream, offset, size)
            os.ftruncate(descriptor, member.size)
        finally:
            os.close(descriptor)

    @staticmethod
    def _copy(descriptor: int, stream: LayerStream, offset: int, size: int) -> None:
        os.lseek(descriptor, offset, os.SEEK_SET)
        while size > 0:
            data = stream.read(min(_CHUNK, size))
            if not data:
                raise InvalidArgumentException("A layer's archive ends too early", "the image is damaged: get it again")
            size -= len(data)
            view = memoryview(data)
            while view:
                view = view[os.write(descriptor, view) :]

    def _link(self, parent: int, path: bytes, name: bytes, member: tarfile.TarInfo) -> None:
        target = parts_of(os.fsencode(member.linkname))
        if not target:
            raise _hostile("a hard link to its root")
        # Not by `_directory`, which would close what `parent` is.
        directory = open_in_root(self._root, b"/".join(target[:-1]), _DIRECTORY)
        try:
            where = self._canonical(directory)
            source = where + b"/" + target[-1] if where else target[-1]
            if source == path:
                return
            if stat.S_ISDIR(os.stat(target[-1], dir_fd=directory, follow_symlinks=False).st_mode):
                raise _hostile("a hard link to a directory")
            self._replace(parent, path, name)
            os.link(target[-1], name, src_dir_fd=directory, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise _hostile(f"a hard link to {os.fsencode(member.linkname)[:200]!r}, which is not there") from None
        finally:
            os.close(directory)
        owner = self._owners.get(source)
        if owner is not None:
            self._owners.set(path, *owner, is_directory=False)
        self._made.add(path)

    # Removing.

    def _replace(self, parent: int, path: bytes, name: bytes) -> None:
        """Removes what has that name: nothing is written through links, nor into files that other roots share."""
        self._forget(path)
        try:
            os.unlink(name, dir_fd=parent)
        except FileNotFoundError:
            return
        except IsADirectoryError:
            self._forget_parent(inside=path)
            shutil.rmtree(os.fsdecode(name), dir_fd=parent)

    def _forget(self, path: bytes) -> None:
        self._owners.forget(path)
        self._made.discard(path)
        if path in self._times:
            # Of directories only; what was in one is in `_times` after it.
            for each in [each for each in self._times if each == path or each.startswith(path + b"/")]:
                del self._times[each]

    def _white_out(self, above: list[bytes], name: bytes) -> None:
        hidden = name.removeprefix(_WHITEOUT)
        if name != _OPAQUE and (hidden in (b"", b".", b"..")):
            raise _hostile(f"the whiteout {name!r}")
        if name != _OPAQUE and hidden.startswith(_WHITEOUT):
            return  # What aufs noted for itself.
        try:
            directory = open_in_root(self._root, b"/".join(above), _DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            where = self._canonical(directory)
            if name == _OPAQUE:
                self._hide_lower(directory, where)
                return
            path = where + b"/" + hidden if where else hidden
            # It hides what lower layers have, never what came with it.
            if path not in self._made:
                self._replace(directory, path, hidden)
        finally:
            os.close(directory)

    def _hide_lower(self, directory: int, where: bytes) -> None:
        for text in os.listdir(directory):
            name = os.fsencode(text)
            path = where + b"/" + name if where else name
            if path not in self._made:
                self._replace(directory, path, name)
            elif stat.S_ISDIR(os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode):
                below = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=directory)
                try:
                    self._hide_lower(below, path)
                finally:
                    os.close(below)

    # Directories.

    def _directory(self, parts: list[bytes]) -> tuple[int, bytes]:
        """A directory that entries are made in, made itself if it is missing, and its true path."""
        wanted = b"/".join(parts)
        if self._parent is None or self._parent[0] != wanted:
            self._forget_parent()
            try:
                descriptor = open_in_root(self._root, wanted, _DIRECTORY)
            except FileNotFoundError:
                descriptor = self._make_all(parts)
            except NotADirectoryError:
                raise _hostile(f"the name {wanted[:200]!r}, which leads through something that is no directory") from None
            self._parent = wanted, self._canonical(descriptor), descriptor
        return self._parent[2], self._parent[1]

    def _make_all(self, parts: list[bytes], links: int = 0) -> int:
        if links > _MOST_LINKS:
            raise _hostile("links that lead in a circle")
        for end in range(1, len(parts) + 1):
            name = parts[end - 1]
            above = open_in_root(self._root, b"/".join(parts[: end - 1]), _DIRECTORY)
            try:
                where = self._canonical(above)
                os.mkdir(name, 0o755, dir_fd=above)
                self._made.add(where + b"/" + name if where else name)
            except FileExistsError:
                self._make_target(above, where, name, links)
            finally:
                os.close(above)
        return open_in_root(self._root, b"/".join(parts), _DIRECTORY)

    def _make_target(self, above: int, where: bytes, name: bytes, links: int) -> None:
        """Makes the directory that a link leads to which leads nowhere yet: `/var/run` in an image whose `/run` comes later."""
        if stat.S_ISLNK(os.stat(name, dir_fd=above, follow_symlinks=False).st_mode):
            target = os.path.normpath(os.path.join(b"/" + where, os.readlink(name, dir_fd=above)))
            os.close(self._make_all(parts_of(target), links + 1))

    def _canonical(self, descriptor: int) -> bytes:
        path = os.readlink(b"/proc/self/fd/%d" % descriptor)
        return path[len(self._base) :].lstrip(b"/")

    def _forget_parent(self, inside: bytes | None = None) -> None:
        if self._parent is not None and (inside is None or (self._parent[1] + b"/").startswith(inside + b"/")):
            os.close(self._parent[2])
            self._parent = None

    def _set_times(self) -> None:
        for path, time in self._times.items():
            try:
                os.utime(path, ns=(time, time), dir_fd=self._root, follow_symlinks=False)
            except FileNotFoundError:
                pass  # A later entry took its place.
        self._times.clear()


def _of_host(error: OSError) -> SandboxException:
    import errno

    text = f"The image cannot be unpacked: {error.strerror or error}"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return NotEnoughSpaceException(text, "make room on the disk, or give another directory")
    if error.errno in (errno.ELOOP, errno.ENAMETOOLONG):
        return InvalidArgumentException(text, "a layer has links that lead nowhere; use another image")
    if error.errno == errno.EMLINK:
        return LimitException(text, "the host's file system has no room for more links to a file")
    return SandboxException(text, "look at the host's file system, or use another image")


def copy_tree(source: str, target: str) -> None:
    """Makes a root that shares all files with another by hard links. Neither's files are ever written to."""
    os.mkdir(target, 0o755)
    names: Any = os.scandir(source)
    with names:
        for entry in names:
            path = os.path.join(target, entry.name)
            if entry.is_dir(follow_symlinks=False):
                copy_tree(entry.path, path)
            else:
                os.link(entry.path, path, follow_symlinks=False)
    status = os.stat(source)
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))
