"""Commands inside: starting them, what they write, how they end."""

from __future__ import annotations

import codecs
import fcntl
import os
import signal as signals
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cloudpilot.core.session import Session
from cloudpilot.engine.client import REQUEST_TIMEOUT, sense
from cloudpilot.engine.pending import Pending
from cloudpilot.engine.reactor import READABLE, WRITABLE, reactor
from cloudpilot.errors import (
    CommandExitException,
    InvalidArgumentException,
    LimitException,
    NotFoundException,
    SandboxException,
    TimeoutException,
)
from cloudpilot.types import CommandResult, ProcessInfo, PtySize

MOST_OUTPUT = 64 << 20
"""Bytes of one stream that are kept for a result. The guest decides how much it writes; it must not decide how much memory we use."""
_CHUNK = 64 << 10
_CHUNKS_AT_ONCE = 16
"""Reads before other descriptors get their turn."""

Output = tuple[str | None, str | None, bytes | None]
OnText = Callable[[str], Awaitable[None] | None]
OnBytes = Callable[[bytes], Awaitable[None] | None]


class Stream:
    """One of a command's outputs: our end of its pipe."""

    def __init__(self, kind: str, descriptor: int) -> None:
        self.kind = kind
        self.descriptor = descriptor
        self.kept = 0
        self.open = True


class Command:
    """A command that was started by this process, or whose end this process wants to know."""

    def __init__(self, session: Session, stdin: int | None, streams: list[Stream], timeout: float | None) -> None:
        self.session = session
        self.pid = 0
        self._stdin = stdin
        self._streams = streams
        self._timeout = timeout
        self._lock = threading.Lock()
        self._output: deque[tuple[str, bytes]] = deque()
        self._changed: Pending[None] | None = None
        self._status: tuple[int, str | None] | None = None
        self._failure: SandboxException | None = None
        self._detached = False
        self._abandoned = False
        self._decoders = {kind: codecs.getincrementaldecoder("utf-8")("replace") for kind in ("stdout", "stderr")}
        self._text: dict[str, list[str]] = {"stdout": [], "stderr": []}

    def started(self, pid: int) -> None:
        """It runs; called in the reactor before the news of its end can come."""
        with self._lock:
            self.pid = pid
            abandoned = self._abandoned
        if abandoned:
            kill_soon(self)
            return
        self.session.commands[pid] = self
        for stream in self._streams:
            os.set_blocking(stream.descriptor, False)
            reactor().watch(stream.descriptor, READABLE, lambda stream=stream: self._read(stream))  # type: ignore[misc]
        if self._timeout is not None:
            timer = reactor().after(self._timeout, self._expire)
            self._when_over = timer.cancel

    def abandon(self) -> None:
        """Whoever wanted it does not any more, maybe before it has started."""
        with self._lock:
            self._abandoned = True
            started = self.pid != 0
        if started:
            kill_soon(self)
        else:
            for stream in self._streams:
                os.close(stream.descriptor)

    _when_over: Callable[[], None] = staticmethod(lambda: None)

    def _read(self, stream: Stream, chunks: int = _CHUNKS_AT_ONCE) -> None:
        for _ in range(chunks):
            try:
                data = os.read(stream.descriptor, _CHUNK)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._close(stream)
                return
            self._take(stream, data)

    def _take(self, stream: Stream, data: bytes) -> None:
        with self._lock:
            if self._over or self._detached:
                return  # What is left running after the command writes into the void.
            stream.kept += len(data)
            self._output.append((stream.kind, data))
            changed, self._changed = self._changed, None
        if changed is not None:
            changed.resolve(None)
        if stream.kept > MOST_OUTPUT:
            self._give_up(
                LimitException(
                    f"The command wrote more than {MOST_OUTPUT >> 20} MiB to {stream.kind}",
                    "let it write to a file, and read that as a stream",
                )
            )

    def _close(self, stream: Stream) -> None:
        if stream.open:
            stream.open = False
            reactor().unwatch(stream.descriptor)
            os.close(stream.descriptor)

    @property
    def _over(self) -> bool:
        return self._status is not None or self._failure is not None

    def exited(self, code: int | None, signal: int | None) -> None:
        """It has ended; what it wrote is in the pipes by now."""
        for stream in self._streams:
            if stream.open:
                self._read(stream, MOST_OUTPUT // _CHUNK)
        status = (code if code is not None else 128 + (signal or 0), None if signal is None else _describe(signal))
        self._finish(status, None)

    def fail(self, error: SandboxException) -> None:
        """It is lost."""
        self._finish(None, error)
        for stream in self._streams:
            self._close(stream)

    def _finish(self, status: tuple[int, str | None] | None, failure: SandboxException | None) -> None:
        with self._lock:
            if self._over:
                return
            self._status, self._failure = status, failure
            changed, self._changed = self._changed, None
        self._when_over()
        if changed is not None:
            changed.resolve(None)

    def _expire(self) -> None:
        self._give_up(TimeoutException(f"The command took longer than {self._timeout:g} s and was killed", "give a longer `timeout`"))

    def _give_up(self, error: SandboxException) -> None:
        self._finish(None, error)
        kill_soon(self)

    async def next_output(self) -> Output | None:
        """What it wrote next; none once it has ended."""
        while True:
            with self._lock:
                if self._output:
                    kind, data = self._output.popleft()
                    break
                if self._over or self._detached:
                    return self._last_output()
                if self._changed is None:
                    self._changed = Pending()
                changed = self._changed
            await changed
        if kind == "pty":
            for stream in self._streams:
                stream.kept -= len(data)
            return None, None, data
        text = self._decoders[kind].decode(data)
        self._text[kind].append(text)
        return (text, None, None) if kind == "stdout" else (None, text, None)

    def _last_output(self) -> Output | None:
        # A character that was cut short by the end.
        for kind, decoder in self._decoders.items():
            text = decoder.decode(b"", final=True)
            if text:
                self._text[kind].append(text)
                return (text, None, None) if kind == "stdout" else (None, text, None)
        return None

    async def wait(self, on_stdout: OnText | None = None, on_stderr: OnText | None = None, on_pty: OnBytes | None = None) -> CommandResult:
        """Waits for its end; what it writes meanwhile is handed to the callbacks."""
        while (output := await self.next_output()) is not None:
            for data, callback in zip(output, (on_stdout, on_stderr, on_pty), strict=True):
                if data is not None and callback is not None:
                    answer = callback(data)  # type: ignore[arg-type]
                    if answer is not None:
                        await answer
        return self.result()

    def result(self) -> CommandResult:
        """How it ended."""
        if self._failure is not None:
            raise self._failure
        if self._status is None:
            raise SandboxException("The command has not ended, and this handle is disconnected", "connect to it again by its pid")
        code, error = self._status
        if code != 0:
            raise CommandExitException(self.stdout, self.stderr, code, error)
        return CommandResult(self.stdout, self.stderr, code, error)

    @property
    def stdout(self) -> str:
        """Its standard output so far."""
        return "".join(self._text["stdout"])

    @property
    def stderr(self) -> str:
        """Its standard error so far."""
        return "".join(self._text["stderr"])

    @property
    def exit_code(self) -> int | None:
        """Its status, once it has ended."""
        return None if self._status is None else self._status[0]

    @property
    def error(self) -> str | None:
        """The signal that ended it, in words."""
        return None if self._status is None else self._status[1]

    async def kill(self) -> bool:
        """Kills it and what it started in its process group. Answers whether it was there."""
        if self._over:
            return False
        return await kill(self.session, self.pid)

    def disconnect(self) -> None:
        """Stops listening; the command runs on, and what it writes is dropped."""
        with self._lock:
            self._detached = True
            changed, self._changed = self._changed, None
        self._when_over()
        if changed is not None:
            changed.resolve(None)

    async def send_stdin(self, data: bytes, timeout: float | None = REQUEST_TIMEOUT) -> None:
        """Writes to its standard input."""
        if self._stdin is None:
            raise InvalidArgumentException(f"The command {self.pid} has no standard input", "start it with `stdin=True`")
        rest = memoryview(data)
        while rest:
            try:
                rest = rest[os.write(self._stdin, rest) :]
            except BlockingIOError:
                await reactor().ready(self._stdin, WRITABLE, timeout, "Writing to the command's standard input")
            except OSError:
                raise NotFoundException(f"The command {self.pid} does not read its standard input any more") from None

    def close_stdin(self) -> None:
        """Lets it read the end of its standard input."""
        descriptor, self._stdin = self._stdin, None
        if descriptor is not None:
            os.close(descriptor)

    def __del__(self) -> None:
        self.close_stdin()


def _describe(signal: int) -> str:
    try:
        return f"ended by signal {signal} ({signals.Signals(signal).name})"
    except ValueError:
        return f"ended by signal {signal}"


def who(user: str | None) -> dict[str, Any] | None:
    """A user as the sandbox takes it, from a name or `UID[:GID]`."""
    if user is None:
        return None
    uid, _, gid = user.partition(":")
    if uid.isascii() and uid.isdigit():
        return {"uid": int(uid), "gid": int(gid) if gid.isascii() and gid.isdigit() else int(uid)}
    return {"name": user}


def memory_file(data: bytes) -> int:
    """The data as a file that nobody can change: the guest must not use our memory as its disk."""
    descriptor = os.memfd_create("cloudpilot-input", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    with open(descriptor, "wb", closefd=False) as file:
        file.write(data)
    os.lseek(descriptor, 0, os.SEEK_SET)
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL)
    return descriptor


async def start(
    session: Session,
    args: list[str],
    *,
    envs: Mapping[str, str] | None = None,
    user: str | None = None,
    cwd: str | None = None,
    stdin: bool | bytes = False,
    tty: PtySize | None = None,
    timeout: float | None = None,
) -> Command:
    """Starts a program."""
    theirs: list[int] = []
    streams: list[Stream] = []
    ours: int | None = None

    def output(kind: str) -> None:
        reader, writer = os.pipe()
        theirs.append(writer)
        streams.append(Stream(kind, reader))

    if tty is not None or stdin is True:
        reader, ours = os.pipe()
        os.set_blocking(ours, False)
        theirs.append(reader)
    else:
        theirs.append(memory_file(stdin) if stdin else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    for kind in ("stdout", "stderr") if tty is None else ("pty",):
        output(kind)
    command = Command(session, ours, streams, timeout)
    user = session.options.user if user is None else user
    params: dict[str, Any] = {
        "args": args,
        "env": session.environment(user, envs),
        "workdir": cwd or session.options.cwd,
        "user": who(user),
    }
    if tty is not None:
        params["tty"] = {"rows": tty.rows, "columns": tty.cols}
    try:
        pending = session.client.call("exec", params, theirs, on_answer=lambda answer: command.started(int(answer["pid"])))
        for descriptor in theirs:
            os.close(descriptor)
        theirs = []
        await pending
    except BaseException:
        for descriptor in theirs:
            os.close(descriptor)
        command.abandon()
        raise
    return command


async def start_shell(session: Session, line: str, **options: Any) -> Command:
    """Starts a shell command: by bash where there is one."""
    try:
        return await start(session, [session.shell, "-c", line], **options)
    except NotFoundException:
        if session.shell == "/bin/sh":
            raise
        session.shell = "/bin/sh"
        return await start(session, [session.shell, "-c", line], **options)


async def rehearse(session: Session) -> None:
    """Lets the shell run once and do nothing, so that the first command finds ready what any start of a shell needs."""
    try:
        await (await start_shell(session, ":")).wait(None, None, None)
    except (NotFoundException, CommandExitException):
        pass  # A root without a shell may be meant so.


async def start_terminal(
    session: Session,
    size: PtySize,
    user: str | None,
    cwd: str | None,
    envs: Mapping[str, str] | None,
    timeout: float | None,
) -> Command:
    """Starts the shell of a terminal."""
    variables = {"TERM": "xterm-256color", **(envs or {})}
    options: dict[str, Any] = {"envs": variables, "user": user, "cwd": cwd, "tty": size, "timeout": timeout or None}
    try:
        return await start(session, [session.shell, "-i"], **options)
    except NotFoundException:
        if session.shell == "/bin/sh":
            raise
        session.shell = "/bin/sh"
        return await start(session, [session.shell, "-i"], **options)


async def connect(session: Session, pid: int) -> Command:
    """A handle for a command that runs. What it writes is known only to the process that started it."""
    if pid not in session.commands:
        known: list[Command] = []

        def announced(_: Any) -> None:
            command = Command(session, None, [], None)
            command.started(pid)
            known.append(command)

        await session.client.call("wait", {"pid": pid}, on_answer=announced)
        return known[0]
    return session.commands[pid]


async def kill(session: Session, pid: int) -> bool:
    """Kills a process and its group. Answers whether it was there."""
    found = False
    for target in (-pid, pid):
        try:
            await session.client.call("signal", {"pid": target, "signal": int(signals.SIGKILL)})
            found = True
        except NotFoundException:
            pass
    return found


def kill_soon(command: Command) -> None:
    """Kills a command without waiting for that to happen."""
    for target in (-command.pid, command.pid):
        command.session.client.call("signal", {"pid": target, "signal": int(signals.SIGKILL)})


def find(session: Session, pid: int) -> Command:
    """The handle of a command that this process started."""
    command = session.commands.get(pid)
    if command is None:
        raise NotFoundException(f"This process started no command {pid} that runs")
    return command


async def processes(session: Session) -> list[ProcessInfo]:
    """Processes inside."""
    answer = await session.client.ask_at_length("processes", {})
    result = []
    with sense():
        for each in answer:
            args = [str(arg) for arg in each.get("args") or [each.get("name", "")]]
            result.append(ProcessInfo(pid=int(each["pid"]), tag=None, cmd=args[0], args=args[1:], cwd=each.get("cwd")))
    return result


async def resize(session: Session, pid: int, size: PtySize) -> None:
    """Changes the size of the terminal that a command was started with."""
    await session.client.call("resize", {"pid": pid, "rows": size.rows, "columns": size.cols})
