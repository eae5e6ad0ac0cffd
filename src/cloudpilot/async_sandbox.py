"""`AsyncSandbox`: the SDK for asyncio. Names and meanings are those of `Sandbox`; what waits is awaited."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Literal, Self, overload

from cloudpilot.core import command as core
from cloudpilot.core import filesystem as core_files
from cloudpilot.core import session as core_session
from cloudpilot.core.command import OnBytes, OnText
from cloudpilot.core.filesystem import Data, OnEvent
from cloudpilot.engine.client import REQUEST_TIMEOUT
from cloudpilot.engine.pending import Driven
from cloudpilot.sandbox import COMMAND_TIMEOUT, SANDBOX_TIMEOUT
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


class AsyncCommandHandle:
    """A command that runs. Iterate over it for `(stdout, stderr, pty)` as it writes, or `wait` for its end."""

    def __init__(
        self,
        command: core.Command,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
        on_pty: OnBytes | None = None,
    ) -> None:
        self._command = command
        self._task: asyncio.Task[CommandResult] | None = None
        if on_stdout or on_stderr or on_pty:
            self._task = asyncio.ensure_future(Driven(command.wait(on_stdout, on_stderr, on_pty)))

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

    async def __aiter__(self) -> AsyncIterator[core.Output]:
        while (output := await Driven(self._command.next_output())) is not None:
            yield output

    async def wait(self) -> CommandResult:
        """Waits for its end.

        Raises:
            CommandExitException: Its status is not 0.
            TimeoutException: It took longer than its timeout, and was killed.
            SandboxEndedException: The sandbox is gone.
        """
        if self._task is not None:
            return await asyncio.shield(self._task)
        return await Driven(self._command.wait())

    async def kill(self) -> bool:
        """Kills it and its process group. Answers whether it was there."""
        return await Driven(self._command.kill())

    async def disconnect(self) -> None:
        """Stops listening; the command runs on, without its timeout."""
        self._command.disconnect()


class AsyncCommands:
    """Commands inside: `sandbox.commands`."""

    def __init__(self, session: core_session.Session) -> None:
        self._session = session

    @overload
    async def run(
        self,
        cmd: str,
        background: Literal[False] = False,
        envs: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
        stdin: bool | str | bytes = False,
        timeout: float | None = COMMAND_TIMEOUT,
    ) -> CommandResult: ...
    @overload
    async def run(
        self,
        cmd: str,
        background: Literal[True],
        envs: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
        stdin: bool | str | bytes = False,
        timeout: float | None = COMMAND_TIMEOUT,
    ) -> AsyncCommandHandle: ...
    async def run(
        self,
        cmd: str,
        background: bool = False,
        envs: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        on_stdout: OnText | None = None,
        on_stderr: OnText | None = None,
        stdin: bool | str | bytes = False,
        timeout: float | None = COMMAND_TIMEOUT,
    ) -> CommandResult | AsyncCommandHandle:
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
        command = await Driven(start)
        if background:
            return AsyncCommandHandle(command, on_stdout, on_stderr)
        try:
            return await Driven(command.wait(on_stdout, on_stderr))
        except asyncio.CancelledError:
            # Whoever cancelled does not wait for the kill; the sandbox gets it all the same.
            core.kill_soon(command)
            raise

    async def list(self) -> list[ProcessInfo]:
        """Processes inside."""
        return await Driven(core.processes(self._session))

    async def kill(self, pid: int) -> bool:
        """Kills a process and its group. Answers whether it was there."""
        return await Driven(core.kill(self._session, pid))

    async def send_stdin(self, pid: int, data: str | bytes) -> None:
        """Writes to the standard input of a command that was started with `stdin=True`."""
        await Driven(core.find(self._session, pid).send_stdin(data.encode() if isinstance(data, str) else data))

    async def close_stdin(self, pid: int) -> None:
        """Lets such a command read the end of its standard input."""
        core.find(self._session, pid).close_stdin()

    async def connect(self, pid: int) -> AsyncCommandHandle:
        """A handle for a command that runs. What it writes reaches only the process that started it."""
        return AsyncCommandHandle(await Driven(core.connect(self._session, pid)))


class AsyncWatchHandle:
    """A watch on a directory."""

    def __init__(self, watch: core_files.Watch) -> None:
        self._watch = watch

    async def get_new_events(self) -> list[FilesystemEvent]:
        """Events since the last call."""
        return self._watch.new_events()

    async def stop(self) -> None:
        """Ends the watch."""
        await Driven(self._watch.stop())


class AsyncFilesystem:
    """Files inside: `sandbox.files`. Paths are absolute; `user` is whose rights count, root's if not given."""

    def __init__(self, session: core_session.Session) -> None:
        self._session = session

    @overload
    async def read(
        self,
        path: str,
        format: Literal["text"] = "text",
        user: str | None = None,
        request_timeout: float | None = REQUEST_TIMEOUT,
    ) -> str: ...
    @overload
    async def read(
        self,
        path: str,
        format: Literal["bytes"],
        user: str | None = None,
        request_timeout: float | None = REQUEST_TIMEOUT,
    ) -> bytearray: ...
    @overload
    async def read(
        self,
        path: str,
        format: Literal["stream"],
        user: str | None = None,
        request_timeout: float | None = REQUEST_TIMEOUT,
    ) -> AsyncIterator[bytes]: ...
    async def read(
        self,
        path: str,
        format: Literal["text", "bytes", "stream"] = "text",  # noqa: A002 -- E2B's name
        user: str | None = None,
        request_timeout: float | None = REQUEST_TIMEOUT,
    ) -> str | bytearray | AsyncIterator[bytes]:
        """A file's contents: as text, as bytes, or as an iterator over chunks of bytes."""
        if format == "stream":
            return self._stream(path, user, request_timeout)
        data = await Driven(core_files.read(self._session, path, user, request_timeout))
        return data.decode(errors="replace") if format == "text" else bytearray(data)

    async def _stream(self, path: str, user: str | None, timeout: float | None) -> AsyncIterator[bytes]:
        download = core_files.Download(self._session, path, user, timeout)
        try:
            while data := await Driven(download.chunk()):
                yield data
        finally:
            download.close()

    async def write(self, path: str, data: Data, user: str | None = None, request_timeout: float | None = REQUEST_TIMEOUT) -> WriteInfo:
        """Writes a file from text, bytes or an open file; makes it and the directories above it."""
        return await Driven(core_files.write(self._session, path, data, user, request_timeout))

    async def write_files(
        self,
        files: Iterable[WriteEntry | Mapping[str, Any]],
        user: str | None = None,
        request_timeout: float | None = REQUEST_TIMEOUT,
    ) -> list[WriteInfo]:
        """Writes several files, each given by `path` and `data`."""
        return await Driven(core_files.write_files(self._session, files, user, request_timeout))

    async def list(
        self, path: str, depth: int = 1, user: str | None = None, request_timeout: float | None = REQUEST_TIMEOUT
    ) -> list[EntryInfo]:
        """Entries of a directory, and of those beneath it down to `depth`."""
        return await Driven(core_files.entries(self._session, path, depth, user, request_timeout))

    async def exists(self, path: str, user: str | None = None, request_timeout: float | None = REQUEST_TIMEOUT) -> bool:
        """Whether there is a file or directory of that name."""
        return await Driven(core_files.exists(self._session, path, user, request_timeout))

    async def get_info(self, path: str, user: str | None = None, request_timeout: float | None = REQUEST_TIMEOUT) -> EntryInfo:
        """A file's attributes; a symbolic link's own."""
        return await Driven(core_files.info(self._session, path, user, request_timeout))

    async def make_dir(self, path: str, user: str | None = None, request_timeout: float | None = REQUEST_TIMEOUT) -> bool:
        """Makes a directory and those above it. Answers whether it is new."""
        return await Driven(core_files.make_dir(self._session, path, user, request_timeout))

    async def remove(self, path: str, user: str | None = None, request_timeout: float | None = REQUEST_TIMEOUT) -> None:
        """Removes a file, or a directory with everything in it."""
        await Driven(core_files.remove(self._session, path, user, request_timeout))

    async def rename(
        self, old_path: str, new_path: str, user: str | None = None, request_timeout: float | None = REQUEST_TIMEOUT
    ) -> EntryInfo:
        """Renames a file or directory."""
        return await Driven(core_files.rename(self._session, old_path, new_path, user, request_timeout))

    async def watch_dir(
        self, path: str, on_event: OnEvent | None = None, user: str | None = None, recursive: bool = False
    ) -> AsyncWatchHandle:
        """Watches a directory for changes; they go to `on_event`, or are kept for `get_new_events`."""
        take = None if on_event is None else _in_loop(on_event)
        return AsyncWatchHandle(await Driven(core_files.watch(self._session, path, user, recursive, take)))


def _in_loop(on_event: OnEvent) -> Callable[[FilesystemEvent], None]:
    """Lets the callback be called by the running loop rather than by the thread that hears of events."""
    loop = asyncio.get_running_loop()
    running: set[asyncio.Future[None]] = set()

    def call(event: FilesystemEvent) -> None:
        answer = on_event(event)
        if answer is not None:
            task = asyncio.ensure_future(answer)
            running.add(task)
            task.add_done_callback(running.discard)

    def take(event: FilesystemEvent) -> None:
        with contextlib.suppress(RuntimeError):  # The loop is closed: nobody listens any more.
            loop.call_soon_threadsafe(call, event)

    return take


class AsyncPty:
    """Programs with a terminal: `sandbox.pty`."""

    def __init__(self, session: core_session.Session) -> None:
        self._session = session

    async def create(
        self,
        size: PtySize,
        on_data: OnBytes | None = None,
        user: str | None = None,
        cwd: str | None = None,
        envs: Mapping[str, str] | None = None,
        timeout: float | None = COMMAND_TIMEOUT,
    ) -> AsyncCommandHandle:
        """Starts an interactive shell in a terminal of its own; its output goes to `on_data`, or comes as `pty`."""
        command = await Driven(core.start_terminal(self._session, size, user, cwd, envs, timeout))
        return AsyncCommandHandle(command, on_pty=on_data)

    async def send_stdin(self, pid: int, data: bytes) -> None:
        """Types into the terminal."""
        await Driven(core.find(self._session, pid).send_stdin(data))

    async def resize(self, pid: int, size: PtySize) -> None:
        """Changes the terminal's size."""
        await Driven(core.resize(self._session, pid, size))

    async def kill(self, pid: int) -> bool:
        """Kills the shell and its process group. Answers whether it was there."""
        return await Driven(core.kill(self._session, pid))


class AsyncSandbox:
    """A sandbox: its own kernel, files, processes and network. Make one by `Sandbox.create`.

    Attributes:
        commands: Runs programs.
        files: Reads and writes files.
        pty: Runs programs with a terminal.
    """

    def __init__(self, session: core_session.Session) -> None:
        self._session = session
        self.commands = AsyncCommands(session)
        self.files = AsyncFilesystem(session)
        self.pty = AsyncPty(session)

    @classmethod
    async def create(
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
        return cls(await Driven(core_session.create(settings, options, timeout)))

    @classmethod
    async def connect(cls, sandbox_id: str, timeout: float | None = None) -> Self:
        """Connects to a sandbox of this user that runs, by its id or name; `timeout` sets its deadline anew."""
        sandbox = cls(core_session.connect(sandbox_id))
        if timeout is not None:
            await sandbox.set_timeout(timeout)
        return sandbox

    @staticmethod
    async def list() -> list[SandboxInfo]:
        """Sandboxes of this user that run."""
        return core_session.running()

    @property
    def sandbox_id(self) -> str:
        """Its unique name."""
        return self._session.id

    async def is_running(self) -> bool:
        """Whether it answers."""
        return await Driven(self._session.is_running())

    async def kill(self) -> bool:
        """Ends it and waits until nothing of it is left. Answers whether it was there."""
        return await Driven(self._session.kill())

    async def set_timeout(self, timeout: float | None) -> None:
        """Lets it live for that many seconds from now; None or 0 for no limit. Only who started it can."""
        self._session.set_timeout(timeout)

    async def get_info(self) -> SandboxInfo:
        """What it is."""
        return self._session.info()

    async def get_metrics(self) -> SandboxMetrics:
        """What it has used until now."""
        return await Driven(self._session.metrics())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        """Ends it."""
        await self.kill()
