"""`Sandbox`: the SDK for code that blocks. Names and meanings are E2B's; `AsyncSandbox` has the same ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal, Self, overload

from cloudpilot.core import command as core
from cloudpilot.core import filesystem as core_files
from cloudpilot.core import session as core_session
from cloudpilot.core.filesystem import Data
from cloudpilot.engine.client import REQUEST_TIMEOUT
from cloudpilot.engine.pending import drive
from cloudpilot.types import (
    CommandResult,
    EntryInfo,
    FilesystemEvent,
    ProcessInfo,
    PtySize,
    SandboxInfo,
    SandboxMetrics,
    WriteEntry,
    WriteInfo,
)

COMMAND_TIMEOUT = 60.0
"""Seconds that a command may take where nothing else is said, as with E2B."""
SANDBOX_TIMEOUT = 300.0
"""Seconds that a sandbox lives where nothing else is said, as with E2B."""


class CommandHandle:
    """A command that runs. Iterate over it for `(stdout, stderr, pty)` as it writes, or `wait` for its end."""

    def __init__(self, command: core.Command) -> None:
        self._command = command

    @property
    def pid(self) -> int:
        """Its number inside."""
        return self._command.pid

    @property
    def stdout(self) -> str:
        """What of its standard output has been received by `wait` or iteration."""
        return self._command.stdout

    @property
    def stderr(self) -> str:
        """What of its standard error has been received by `wait` or iteration."""
        return self._command.stderr

    @property
    def exit_code(self) -> int | None:
        """Its status, once it has ended."""
        return self._command.exit_code

    @property
    def error(self) -> str | None:
        """The signal that ended it, in words."""
        return self._command.error

    def __iter__(self) -> Iterator[core.Output]:
        while (output := drive(self._command.next_output())) is not None:
            yield output

    def wait(
        self,
        on_pty: Callable[[bytes], None] | None = None,
        on_stdout: Callable[[str], None] | None = None,
        on_stderr: Callable[[str], None] | None = None,
    ) -> CommandResult:
        """Waits for its end.

        Raises:
            CommandExitException: Its status is not 0.
            TimeoutException: It took longer than its timeout, and was killed.
            SandboxEndedException: The sandbox is gone.
        """
        return drive(self._command.wait(on_stdout, on_stderr, on_pty))

    def kill(self) -> bool:
        """Kills it and its process group. Answers whether it was there."""
        return drive(self._command.kill())

    def disconnect(self) -> None:
        """Stops listening; the command runs on, without its timeout."""
        self._command.disconnect()


class Commands:
    """Commands inside: `sandbox.commands`."""

    def __init__(self, session: core_session.Session) -> None:
        self._session = session

    @overload
    def run(
        self,
        cmd: str,
        background: Literal[False] = False,
        envs: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        on_stdout: Callable[[str], None] | None = None,
        on_stderr: Callable[[str], None] | None = None,
        stdin: bool | str | bytes = False,
        timeout: float | None = COMMAND_TIMEOUT,
    ) -> CommandResult: ...
    @overload
    def run(
        self,
        cmd: str,
        background: Literal[True],
        envs: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        on_stdout: Callable[[str], None] | None = None,
        on_stderr: Callable[[str], None] | None = None,
        stdin: bool | str | bytes = False,
        timeout: float | None = COMMAND_TIMEOUT,
    ) -> CommandHandle: ...
    def run(
        self,
        cmd: str,
        background: bool = False,
        envs: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        on_stdout: Callable[[str], None] | None = None,
        on_stderr: Callable[[str], None] | None = None,
        stdin: bool | str | bytes = False,
        timeout: float | None = COMMAND_TIMEOUT,
    ) -> CommandResult | CommandHandle:
        """Runs a shell command: by `bash -c`, or `sh -c` where there is no bash.

        Args:
            cmd: The command.
            background: Return a handle at once rather than wait for the end.
            envs: Variables, beside those of the sandbox.
            user: Who runs it: a name from the sandbox's `/etc/passwd`, or `UID[:GID]`. Root if not given.
            cwd: Working directory.
            on_stdout: Called with standard output as it comes, while somebody waits.
            on_stderr: The same for standard error.
            stdin: True for a pipe that `send_stdin` writes to; text or bytes to be read. There is none otherwise.
            timeout: Seconds after which it is killed; None or 0 for no limit.

        Raises:
            CommandExitException: Its status is not 0.
            TimeoutException: It took too long, and was killed.
            SandboxEndedException: The sandbox is gone.
        """
        start = core.start_shell(
            self._session,
            cmd,
            envs=envs,
            user=user,
            cwd=cwd,
            stdin=stdin.encode() if isinstance(stdin, str) else stdin,
            timeout=timeout or None,
        )
        command = drive(start)
        if not background:
            try:
                return drive(command.wait(on_stdout, on_stderr))
            except KeyboardInterrupt:
                core.kill_soon(command)
                raise
        return CommandHandle(command)

    def list(self) -> list[ProcessInfo]:
        """Processes inside."""
        return drive(core.processes(self._session))

    def kill(self, pid: int) -> bool:
        """Kills a process and its group. Answers whether it was there."""
        return drive(core.kill(self._session, pid))

    def send_stdin(self, pid: int, data: str | bytes) -> None:
        """Writes to the standard input of a command that was started with `stdin=True`."""
        drive(core.find(self._session, pid).send_stdin(data.encode() if isinstance(data, str) else data))

    def close_stdin(self, pid: int) -> None:
        """Lets such a command read the end of its standard input."""
        core.find(self._session, pid).close_stdin()

    def connect(self, pid: int) -> CommandHandle:
        """A handle for a command that runs. What it writes reaches only the process that started it."""
        return CommandHandle(drive(core.connect(self._session, pid)))


class WatchHandle:
    """A watch on a directory."""

    def __init__(self, watch: core_files.Watch) -> None:
        self._watch = watch

    def get_new_events(self) -> list[FilesystemEvent]:
        """Events since the last call."""
        return self._watch.new_events()

    def stop(self) -> None:
        """Ends the watch."""
        drive(self._watch.stop())


class Filesystem:
    """Files inside: `sandbox.files`. Paths are absolute; `user` is whose rights count, root's if not given."""

    def __init__(self, session: core_session.Session) -> None:
        self._session = session

    @overload
    def read(
        self,
        path: str,
        format: Literal["text"] = "text",
        user: str | None = None,
        request_timeout: float | None = REQUEST_TIMEOUT,
    ) -> str: ...
    @overload
    def read(
        self,
        path: str,
        format: Literal["bytes"],
        user: str | None = None,
        request_timeout: float | None = REQUEST_TIMEOUT,
    ) -> bytearray: ...
    @overload
    def read(
        self,
        path: str,
        format: Literal["stream"],
        user: str | None = None,
        request_timeout: float | None = REQUEST_TIMEOUT,
    ) -> Iterator[bytes]: ...
    def read(
        self,
        path: str,
        format: Literal["text", "bytes", "stream"] = "text",  # noqa: A002 -- E2B's name
        user: str | None = None,
        request_timeout: float | None = REQUEST_TIMEOUT,
    ) -> str | bytearray | Iterator[bytes]:
        """A file's contents: as text, as bytes, or as an iterator over chunks of bytes."""
        if format == "stream":
            return self._stream(path, user, request_timeout)
        data = drive(core_files.read(self._session, path, user, request_timeout))
        return data.decode(errors="replace") if format == "text" else bytearray(data)

    def _stream(self, path: str, user: str | None, timeout: float | None) -> Iterator[bytes]:
        download = core_files.Download(self._session, path, user, timeout)
        try:
            while data := drive(download.chunk()):
                yield data
        finally:
            download.close()

    def write(self, path: str, data: Data, user: str | None = None, request_timeout: float | None = REQUEST_TIMEOUT) -> WriteInfo:
        """Writes a file from text, bytes or an open file; makes it and the directories above it."""
        return drive(core_files.write(self._session, path, data, user, request_timeout))

    def write_files(
        self,
        files: Iterable[WriteEntry | Mapping[str, Any]],
        user: str | None = None,
        request_timeout: float | None = REQUEST_TIMEOUT,
    ) -> list[WriteInfo]:
        """Writes several files, each given by `path` and `data`."""
        return drive(core_files.write_files(self._session, files, user, request_timeout))

    def list(self, path: str, depth: int = 1, user: str | None = None, request_timeout: float | None = REQUEST_TIMEOUT) -> list[EntryInfo]:
        """Entries of a directory, and of those beneath it down to `depth`."""
        return drive(core_files.entries(self._session, path, depth, user, request_timeout))

    def exists(self, path: str, user: str | None = None, request_timeout: float | None = REQUEST_TIMEOUT) -> bool:
        """Whether there is a file or directory of that name."""
        return drive(core_files.exists(self._session, path, user, request_timeout))

    def get_info(self, path: str, user: str | None = None, request_timeout: float | None = REQUEST_TIMEOUT) -> EntryInfo:
        """A file's attributes; a symbolic link's own."""
        return drive(core_files.info(self._session, path, user, request_timeout))

    def make_dir(self, path: str, user: str | None = None, request_timeout: float | None = REQUEST_TIMEOUT) -> bool:
        """Makes a directory and those above it. Answers whether it is new."""
        return drive(core_files.make_dir(self._session, path, user, request_timeout))

    def remove(self, path: str, user: str | None = None, request_timeout: float | None = REQUEST_TIMEOUT) -> None:
        """Removes a file, or a directory with everything in it."""
        drive(core_files.remove(self._session, path, user, request_timeout))

    def rename(self, old_path: str, new_path: str, user: str | None = None, request_timeout: float | None = REQUEST_TIMEOUT) -> EntryInfo:
        """Renames a file or directory."""
        return drive(core_files.rename(self._session, old_path, new_path, user, request_timeout))

    def watch_dir(self, path: str, user: str | None = None, recursive: bool = False) -> WatchHandle:
        """Watches a directory for changes."""
        return WatchHandle(drive(core_files.watch(self._session, path, user, recursive, None)))


class Pty:
    """Programs with a terminal: `sandbox.pty`."""

    def __init__(self, session: core_session.Session) -> None:
        self._session = session

    def create(
        self,
        size: PtySize,
        user: str | None = None,
        cwd: str | None = None,
        envs: Mapping[str, str] | None = None,
        timeout: float | None = COMMAND_TIMEOUT,
    ) -> CommandHandle:
        """Starts an interactive shell in a terminal of its own; its output comes as `pty`, in bytes."""
        return CommandHandle(drive(core.start_terminal(self._session, size, user, cwd, envs, timeout)))

    def send_stdin(self, pid: int, data: bytes) -> None:
        """Types into the terminal."""
        drive(core.find(self._session, pid).send_stdin(data))

    def resize(self, pid: int, size: PtySize) -> None:
        """Changes the terminal's size."""
        drive(core.resize(self._session, pid, size))

    def kill(self, pid: int) -> bool:
        """Kills the shell and its process group. Answers whether it was there."""
        return drive(core.kill(self._session, pid))


class Sandbox:
    """A sandbox: its own kernel, files, processes and network. Make one by `Sandbox.create`.

    Attributes:
        commands: Runs programs.
        files: Reads and writes files.
        pty: Runs programs with a terminal.
    """

    def __init__(self, session: core_session.Session) -> None:
        self._session = session
        self.commands = Commands(session)
        self.files = Filesystem(session)
        self.pty = Pty(session)

    @classmethod
    def create(
        cls,
        *,
        timeout: float | None = SANDBOX_TIMEOUT,
        metadata: Mapping[str, str] | None = None,
        envs: Mapping[str, str] | None = None,
        cwd: str | None = None,
        image: str | None = None,
        rootfs: str | os.PathLike[str] | None = None,
        volumes: Mapping[str, str] | None = None,
        memory: str | int | None = None,
        cpus: float | None = None,
        pids: int | None = None,
        network: Literal["none", "host"] = "none",
        name: str | None = None,
        hostname: str | None = None,
    ) -> Self:
        """Starts a sandbox. It ends by `kill`, at its timeout, or with this process, and nothing of it stays.

        Args:
            timeout: Seconds that it lives; None or 0 for no limit.
            metadata: Whatever is to be found again in `get_info`.
            envs: Variables of all its commands.
            cwd: Working directory of its commands; the image's, or `/`, if not given.
            image: Image to start from, by its name (`pilot image list`): its files, variables, directory and user.
            rootfs: Directory to show as root, read-only under memory; the host's programs if not given.
            volumes: Host directories or files to show inside, like `{"/data": "/data:ro"}`.
            memory: Guest memory, like `"512m"`; half of the host's if not given.
            cpus: CPUs' worth of time.
            pids: Processes and threads.
            network: `none` is loopback only; `host` reaches what the host reaches.
            name: A name for `pilot exec` and `connect`.
            hostname: Its host name.

        Raises:
            SandboxException: It could not start; the message says why.
        """
        start = core_session.start_of(image, rootfs)
        settings = core_session.configuration(
            start=start,
            rootfs=rootfs,
            volumes=volumes,
            memory=memory,
            cpus=cpus,
            pids=pids,
            network=network,
            name=name,
            hostname=hostname,
        )
        options = core_session.SessionOptions(envs, metadata, cwd, start)
        return cls(drive(core_session.create(settings, options, timeout)))

    @classmethod
    def connect(cls, sandbox_id: str, timeout: float | None = None) -> Self:
        """Connects to a sandbox of this user that runs, by its id or name; `timeout` sets its deadline anew."""
        sandbox = cls(core_session.connect(sandbox_id))
        if timeout is not None:
            sandbox.set_timeout(timeout)
        return sandbox

    @staticmethod
    def list() -> list[SandboxInfo]:
        """Sandboxes of this user that run."""
        return core_session.running()

    @property
    def sandbox_id(self) -> str:
        """Its unique name."""
        return self._session.id

    def is_running(self) -> bool:
        """Whether it answers."""
        return drive(self._session.is_running())

    def kill(self) -> bool:
        """Ends it and waits until nothing of it is left. Answers whether it was there."""
        return drive(self._session.kill())

    def set_timeout(self, timeout: float | None) -> None:
        """Lets it live for that many seconds from now; None or 0 for no limit. Only who started it can."""
        self._session.set_timeout(timeout)

    def get_info(self) -> SandboxInfo:
        """What it is."""
        return self._session.info()

    def get_metrics(self) -> SandboxMetrics:
        """What it has used until now."""
        return drive(self._session.metrics())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Ends it."""
        self.kill()
