"""Files inside: contents through descriptors, everything else as messages."""

from __future__ import annotations

import os
import posixpath
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import IO, Any

from cloudpilot.core.command import memory_file, who
from cloudpilot.core.session import Session
from cloudpilot.engine.client import REQUEST_TIMEOUT, sense
from cloudpilot.engine.pending import Pending
from cloudpilot.engine.reactor import READABLE, reactor
from cloudpilot.errors import InvalidArgumentException, LimitException, NotFoundException, SandboxException
from cloudpilot.types import EntryInfo, FilesystemEvent, FilesystemEventType, FileType, WriteEntry, WriteInfo

LONGEST_READ = 1 << 30
"""Bytes that are read into memory at once: a file inside may be endless."""
MOST_EVENTS = 65536
"""Events of a watch that are kept until they are asked for."""
_CHUNK = 256 << 10

OnEvent = Callable[[FilesystemEvent], Awaitable[None] | None]
Data = str | bytes | bytearray | IO[str] | IO[bytes]


class Download:
    """A file that is being read: chunks from a pipe that the sandbox writes into."""

    def __init__(self, session: Session, path: str, user: str | None, timeout: float | None) -> None:
        self._timeout = timeout
        self._path = path
        self._reader, writer = os.pipe()
        os.set_blocking(self._reader, False)
        try:
            self.answer = session.client.call("read_file", {"path": path, "user": who(user)}, [writer], timeout)
        except BaseException:
            self.close()
            raise
        finally:
            os.close(writer)

    async def chunk(self) -> bytes:
        """What comes next; nothing at the end of the file."""
        while True:
            try:
                data = os.read(self._reader, _CHUNK)
            except BlockingIOError:
                await reactor().ready(self._reader, READABLE, self._timeout, f"Reading `{self._path}`")
                continue
            if not data:
                # Why it ended: at the end, or for an error.
                await self.answer
            return data

    def close(self) -> None:
        """Stops reading."""
        if self._reader >= 0:
            os.close(self._reader)
            self._reader = -1

    def __del__(self) -> None:
        self.close()


async def read(session: Session, path: str, user: str | None, timeout: float | None) -> bytes:
    """A file's contents."""
    download = Download(session, path, user, timeout)
    try:
        chunks = []
        size = 0
        while data := await download.chunk():
            chunks.append(data)
            size += len(data)
            if size > LONGEST_READ:
                raise LimitException(f"`{path}` has more than {LONGEST_READ >> 20} MiB", "read it with `format='stream'`")
        return b"".join(chunks)
    finally:
        download.close()


def _as_file(data: Data) -> int:
    if isinstance(data, str):
        return memory_file(data.encode())
    if isinstance(data, bytes | bytearray | memoryview):
        return memory_file(bytes(data))
    if not hasattr(data, "read"):
        raise InvalidArgumentException(f"Data of type `{type(data).__name__}` cannot be written", "give str, bytes or an open file")
    descriptor = os.memfd_create("cloudpilot-upload", os.MFD_CLOEXEC)
    with open(descriptor, "wb", closefd=False) as file:
        while chunk := data.read(_CHUNK):
            file.write(chunk.encode() if isinstance(chunk, str) else chunk)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


async def write(session: Session, path: str, data: Data, user: str | None, timeout: float | None) -> WriteInfo:
    """Writes a file, made or emptied first, and the directories above it."""
    descriptor = _as_file(data)
    params = {"path": path, "user": who(user)}
    try:
        try:
            await session.client.call("write_file", params, [descriptor], timeout)
        except NotFoundException:
            await make_dir(session, posixpath.dirname(path), user, timeout)
            os.lseek(descriptor, 0, os.SEEK_SET)
            await session.client.call("write_file", params, [descriptor], timeout)
    finally:
        os.close(descriptor)
    return WriteInfo(posixpath.basename(path), FileType.FILE, path)


async def write_files(session: Session, files: Iterable[Any], user: str | None, timeout: float | None) -> list[WriteInfo]:
    """Writes files."""
    result = []
    for file in files:
        path, data = (file.path, file.data) if isinstance(file, WriteEntry) else (file["path"], file["data"])
        result.append(await write(session, path, data, user, timeout))
    return result


async def entries(session: Session, path: str, depth: int, user: str | None, timeout: float | None) -> list[EntryInfo]:
    """A directory's entries."""
    if depth < 1:
        raise InvalidArgumentException(f"A depth of {depth} lists nothing", "give at least 1")
    answer = await session.client.ask_at_length("list_dir", {"path": path, "depth": depth, "user": who(user)}, timeout)
    with sense():
        return [EntryInfo.from_answer(entry) for entry in answer["entries"]]


async def info(session: Session, path: str, user: str | None, timeout: float | None) -> EntryInfo:
    """A file's attributes."""
    answer = await session.client.call("stat", {"path": path, "user": who(user)}, timeout=timeout)
    with sense():
        return EntryInfo.from_answer(answer)


async def exists(session: Session, path: str, user: str | None, timeout: float | None) -> bool:
    """Whether there is a file of that name."""
    try:
        await session.client.call("stat", {"path": path, "user": who(user)}, timeout=timeout)
    except NotFoundException:
        return False
    except InvalidArgumentException as error:
        # A component of the path is a file.
        if path.startswith("/") and "\0" not in path:
            return False
        raise error from None
    return True


async def make_dir(session: Session, path: str, user: str | None, timeout: float | None) -> bool:
    """Makes a directory and those above it; answers whether it is new."""
    answer = await session.client.call("make_dir", {"path": path, "user": who(user)}, timeout=timeout)
    with sense():
        return bool(answer["created"])


async def remove(session: Session, path: str, user: str | None, timeout: float | None) -> None:
    """Removes a file, or a directory with everything in it."""
    await session.client.call("remove", {"path": path, "user": who(user)}, timeout=timeout)


async def rename(session: Session, old: str, new: str, user: str | None, timeout: float | None) -> EntryInfo:
    """Renames a file."""
    await session.client.call("rename", {"from": old, "to": new, "user": who(user)}, timeout=timeout)
    return await info(session, new, user, timeout)


class Watch:
    """A watch on a directory."""

    def __init__(self, session: Session, on_event: Callable[[FilesystemEvent], None] | None) -> None:
        self._session = session
        self._number = -1
        self._on_event = on_event
        self._events: deque[FilesystemEvent] = deque(maxlen=MOST_EVENTS)
        self._lock = threading.Lock()
        self._lost = False

    def started(self, number: int) -> None:
        """It watches; called in the reactor before the first event."""
        self._number = number
        self._session.watches[number] = self._take

    def _take(self, message: dict[str, Any]) -> None:
        try:
            event = FilesystemEvent(message["name"], FilesystemEventType(message["type"]))
        except ValueError:
            return  # A kind of change that a later version reports.
        if self._on_event is not None:
            self._on_event(event)
            return
        with self._lock:
            self._lost |= len(self._events) == MOST_EVENTS
            self._events.append(event)

    def new_events(self) -> list[FilesystemEvent]:
        """Events since the last question."""
        if self._session.closed.settled:
            raise self._session.closed.result()
        with self._lock:
            result = list(self._events)
            self._events.clear()
            lost, self._lost = self._lost, False
        if lost:
            raise LimitException(f"More than {MOST_EVENTS} events came, and the oldest were dropped", "ask for events more often")
        return result

    async def stop(self) -> None:
        """Ends the watch."""
        if self._session.watches.pop(self._number, None) is not None:
            try:
                await self._session.client.call("unwatch", {"watch": self._number})
            except SandboxException:
                if not self._session.closed.settled:
                    raise


async def watch(
    session: Session,
    path: str,
    user: str | None,
    recursive: bool,
    on_event: Callable[[FilesystemEvent], None] | None,
    timeout: float | None = REQUEST_TIMEOUT,
) -> Watch:
    """Watches a directory."""
    result = Watch(session, on_event)
    params = {"path": path, "user": who(user), "recursive": recursive}
    pending: Pending[Any] = session.client.call(
        "watch", params, timeout=timeout, on_answer=lambda answer: result.started(int(answer["watch"]))
    )
    await pending
    return result
