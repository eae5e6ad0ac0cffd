"""What the SDK gives back and takes: results, entries of directories, events."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum
from typing import Any


@dataclass(frozen=True, slots=True)
class CommandResult:
    """How a command ended.

    Attributes:
        stdout: What it wrote to standard output.
        stderr: What it wrote to standard error.
        exit_code: Its status; 128+n if signal n ended it.
        error: The signal in words, if one ended it.
    """

    stdout: str
    stderr: str
    exit_code: int
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process inside.

    Attributes:
        pid: Its number inside.
        tag: Unused; E2B's clients look for it.
        cmd: The program.
        args: Its arguments.
        envs: Its environment, as far as the SDK gave it.
        cwd: Its working directory, if it is known.
    """

    pid: int
    tag: str | None
    cmd: str
    args: list[str]
    envs: dict[str, str] = field(default_factory=dict)
    cwd: str | None = None


@dataclass(frozen=True, slots=True)
class PtySize:
    """The size of a terminal in characters."""

    rows: int
    cols: int


class FileType(Enum):
    """What a file is."""

    FILE = "file"
    DIR = "dir"
    SYMLINK = "symlink"
    FIFO = "fifo"
    SOCKET = "socket"
    CHARACTER_DEVICE = "character_device"
    BLOCK_DEVICE = "block_device"


@dataclass(frozen=True, slots=True)
class WriteInfo:
    """A file that was written.

    Attributes:
        name: The last component of its path.
        type: What it is.
        path: Where it is, absolute.
    """

    name: str
    type: FileType
    path: str


@dataclass(frozen=True, slots=True)
class EntryInfo:
    """A file.

    Attributes:
        name: The last component of its path.
        type: What it is; symbolic links are not followed.
        path: Where it is, absolute.
        size: Bytes.
        mode: Permission bits.
        permissions: The same, as `ls -l` has it.
        uid: Number of the user it belongs to.
        gid: Number of the group it belongs to.
        modified_time: When its contents last changed.
        symlink_target: Where a symbolic link leads.
    """

    name: str
    type: FileType
    path: str
    size: int
    mode: int
    permissions: str
    uid: int
    gid: int
    modified_time: datetime
    symlink_target: str | None = None

    @classmethod
    def from_answer(cls, answer: dict[str, Any]) -> EntryInfo:
        """From what the sandbox says."""
        kind = FileType.DIR if answer["type"] == "directory" else FileType(answer["type"])
        mode = int(answer["mode"]) & 0o7777
        return cls(
            name=answer["name"],
            type=kind,
            path=answer["path"],
            size=int(answer["size"]),
            mode=mode,
            permissions=_permissions(kind, mode),
            uid=int(answer["uid"]),
            gid=int(answer["gid"]),
            modified_time=datetime.fromtimestamp(int(answer["mtime_ns"]) / 1e9, UTC),
            symlink_target=answer.get("target"),
        )


_LETTERS = {
    FileType.FILE: 0o100000,
    FileType.DIR: 0o040000,
    FileType.SYMLINK: 0o120000,
    FileType.FIFO: 0o010000,
    FileType.SOCKET: 0o140000,
    FileType.CHARACTER_DEVICE: 0o020000,
    FileType.BLOCK_DEVICE: 0o060000,
}


def _permissions(kind: FileType, mode: int) -> str:
    import stat

    return stat.filemode(_LETTERS[kind] | mode)


@dataclass(frozen=True, slots=True)
class WriteEntry:
    """A file for `files.write_files`.

    Attributes:
        path: Where it shall be, absolute.
        data: What shall be in it.
    """

    path: str
    data: Any


class FilesystemEventType(Enum):
    """What happened to a file."""

    CREATE = "create"
    WRITE = "write"
    REMOVE = "remove"
    RENAME = "rename"
    CHMOD = "chmod"


@dataclass(frozen=True, slots=True)
class FilesystemEvent:
    """A change in a watched directory.

    Attributes:
        name: Which file, relative to the directory.
        type: What happened to it.
    """

    name: str
    type: FilesystemEventType


class SandboxState(Enum):
    """What a sandbox does."""

    RUNNING = "running"


@dataclass(frozen=True, slots=True)
class SandboxInfo:
    """A sandbox that runs.

    Attributes:
        sandbox_id: Its unique name.
        name: The name that it was given.
        metadata: What was given to `Sandbox.create`; only the process that started it knows.
        started_at: When it started.
        end_at: When its time is up, if it has a deadline that this process knows of.
        state: What it does.
    """

    sandbox_id: str
    name: str | None
    metadata: dict[str, str]
    started_at: datetime
    end_at: datetime | None
    state: SandboxState = SandboxState.RUNNING


@dataclass(frozen=True, slots=True)
class SandboxMetrics:
    """What a sandbox has used until now. The first five names are E2B's.

    Attributes:
        timestamp: When that was.
        cpu_used_pct: Processor time since the last question, or since the start, in percent of one CPU.
        cpu_count: CPUs that it is told of.
        mem_used: Guest memory in use, bytes.
        mem_total: Its limit.
        cpu_seconds: Processor time in all, in programs and in the kernel on their behalf.
        processes: Processes inside.
        threads: Threads inside.
        storage_read_bytes: Read from files of the host: volumes and the read-only root.
        storage_written_bytes: Written to volumes.
        storage_reads: Calls that read from there.
        storage_writes: Calls that wrote there.
        network_received_bytes: Received over connections that leave the sandbox.
        network_sent_bytes: Sent over them.
        network_received_packets: Messages, and pieces of streams, that were received.
        network_sent_packets: The same for those that were sent.
    """

    timestamp: datetime
    cpu_used_pct: float
    cpu_count: int
    mem_used: int
    mem_total: int
    cpu_seconds: float
    processes: int
    threads: int
    storage_read_bytes: int
    storage_written_bytes: int
    storage_reads: int
    storage_writes: int
    network_received_bytes: int
    network_sent_bytes: int
    network_received_packets: int
    network_sent_packets: int
