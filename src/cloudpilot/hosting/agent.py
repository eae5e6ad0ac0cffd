"""What is done inside a sandbox, over its control socket: programs, files, watches. Nothing of it runs where the guest could starve it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import posixpath
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from cloudpilot.core.command import memory_file
from cloudpilot.engine import config
from cloudpilot.engine.client import REQUEST_TIMEOUT, Client
from cloudpilot.engine.pending import Driven, Pending
from cloudpilot.errors import NotFoundException, SandboxEndedException, SandboxException
from cloudpilot.hosting.failures import Failure, Kind
from cloudpilot.hosting.processes import End, Output, Process, fulfil
from cloudpilot.hosting.sandbox_log import LONGEST_LINE, SandboxLog

MOST_EVENTS = 4096
"""Events of a watch that wait for somebody to ask for them."""
MOST_LINES_A_SECOND = 200
"""Lines of one program that its sandbox's log takes: one that prints without end must not keep the service busy."""
_CHUNK = 256 << 10
_PIPE_SIZE = 1 << 20
_F_SETPIPE_SZ = 1031
_ACCOUNTS_AGE = 5.0
_E2B_USER = "user"
_E2B_USER_ID = 1000


class Watch:
    """A watch on a directory: events wait until they are asked for."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.number = -1
        self.events: deque[dict[str, Any]] = deque(maxlen=MOST_EVENTS)
        self.news = asyncio.Event()
        self.lost: Failure | None = None
        self.asker: tuple[dict[str, int], bool] | None = None
        """Who asks for events, and whether with attributes; none where they are streamed."""

    def put(self, event: dict[str, Any]) -> None:
        """Takes an event."""
        self.events.append(event)
        self.news.set()


async def settle(pending: Pending[Any]) -> Any:
    """Awaits an answer of the engine."""

    async def inner() -> Any:
        return await pending

    return await Driven(inner())


class Agent:
    """One sandbox's control socket, as the service uses it. `on_end` is called once, when the sandbox has hung up."""

    def __init__(
        self,
        sandbox_id: str,
        envs: Mapping[str, str],
        on_end: Callable[[], None],
        user: str = "",
        workdir: str = "",
        log: SandboxLog | None = None,
    ) -> None:
        self.id = sandbox_id
        self._log = log
        self.envs = dict(envs)
        self._user = user
        self._workdir = workdir
        self.processes: dict[int, Process] = {}
        self.watches: dict[int, Watch] = {}
        self._on_end = on_end
        self._starting = 0
        self._early_ends: dict[int, tuple[int | None, int | None]] = {}
        self._waited_for: dict[int, asyncio.Future[tuple[int | None, int | None]]] = {}
        self._accounts: tuple[float, dict[str, dict[int, str]], dict[str, tuple[int, int, str]]] | None = None
        self._loop = asyncio.get_running_loop()
        self._ended = False
        self.client = Client(sandbox_id, self._event, self._hung_up)

    # From the engine's thread.

    def _event(self, event: dict[str, Any]) -> None:
        self._loop.call_soon_threadsafe(self._take, event)

    def _hung_up(self) -> None:
        try:
            self._loop.call_soon_threadsafe(self._end)
        except RuntimeError:
            pass  # The service has ended before the sandbox.

    # In the service's thread.

    def _take(self, event: dict[str, Any]) -> None:
        if event.get("event") == "exited":
            process = self.processes.pop(event["pid"], None)
            waited = self._waited_for.pop(event["pid"], None)
            status = event.get("exit_code"), event.get("signal")
            if process is not None:
                process.ended(*status)
                how = process.end.status if process.end else ""
                self.note("info", f"process {process.pid} ended: {how}", pid=process.pid)
            elif waited is not None and not waited.done():
                waited.set_result(status)
            elif self._starting:
                self._early_ends[event["pid"]] = status
        elif event.get("event") == "file":
            watch = self.watches.get(event["watch"])
            if watch is not None:
                watch.put(event)

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        failure = Failure(Kind.UNAVAILABLE, f"The sandbox was not found: `{self.id}` has ended")
        self.client.fail_all(SandboxEndedException(failure.message))
        for process in list(self.processes.values()):
            process.lose(failure)
        self.processes.clear()
        for future in self._waited_for.values():
            if not future.done():
                future.set_exception(failure)
        for watch in self.watches.values():
            watch.lost = failure
            watch.news.set()
        self.watches.clear()
        self._on_end()

    def close(self) -> None:
        """Hangs up; the sandbox goes on."""
        self._ended = True
        self.client.close()

    def note(self, level: str, line: str, **fields: Any) -> None:
        """Writes a line into the sandbox's log."""
        if self._log is not None:
            self._log.note(level, line, **fields)

    async def note_output(self, process: Process, **fields: Any) -> None:
        """Writes what a program prints into the sandbox's log, as far as that is not too much."""
        rest = {"stdout": b"", "stderr": b""}
        second, count, left_out = 0, 0, 0
        async for item in _until_lost(process):
            if not isinstance(item, Output):
                continue
            *lines, rest[item.kind] = (rest[item.kind] + item.data).split(b"\n")
            rest[item.kind] = rest[item.kind][-LONGEST_LINE:]
            for line in lines:
                if int(time.monotonic()) != second:
                    if left_out:
                        self.note("warn", f"{left_out} lines were left out", **fields)
                    second, count, left_out = int(time.monotonic()), 0, 0
                count += 1
                if count > MOST_LINES_A_SECOND:
                    left_out += 1
                    continue
                self.note("info", line.decode(errors="replace"), stream=item.kind, **fields)

    async def call(
        self, method: str, params: dict[str, Any], descriptors: list[int] | None = None, timeout: float | None = REQUEST_TIMEOUT
    ) -> Any:
        """Sends a request and waits for its answer."""
        return await settle(self.client.call(method, params, descriptors, timeout))

    # Users.

    async def accounts(self) -> tuple[dict[str, dict[int, str]], dict[str, tuple[int, int, str]]]:
        """Names of users and groups by their numbers, and users' numbers and homes by their names, as the guest has them."""
        if self._accounts is not None and time.monotonic() - self._accounts[0] < _ACCOUNTS_AGE:
            return self._accounts[1], self._accounts[2]
        names: dict[str, dict[int, str]] = {"passwd": {0: "root"}, "group": {0: "root"}}
        users: dict[str, tuple[int, int, str]] = {"root": (0, 0, "/root")}
        for file, table in names.items():
            for line in (await self._text(f"/etc/{file}")).splitlines():
                fields = line.split(":")
                if len(fields) > 2 and fields[2].isdigit():
                    table[int(fields[2])] = fields[0]
                    if file == "passwd" and len(fields) > 5 and fields[3].isdigit():
                        users[fields[0]] = int(fields[2]), int(fields[3]), fields[5]
        self._accounts = time.monotonic(), names, users
        return names, users

    async def _text(self, path: str, most: int = 1 << 20) -> str:
        text = b""
        try:
            async for chunk in self.read_file(path, None):
                text += chunk
                if len(text) > most:
                    break
        except NotFoundException:
            pass
        return text.decode(errors="replace")

    async def who(self, user: str | None) -> tuple[dict[str, int], str]:
        """Numbers and home of a user, given as a name or as `UID[:GID]`; the template's, or root, if none is given."""
        user = user or self._user or "root"
        if user == "root":
            return {"uid": 0, "gid": 0}, "/root"
        uid, _, gid = user.partition(":")
        if uid.isascii() and uid.isdigit():
            return {"uid": int(uid), "gid": int(gid) if gid.isdigit() else int(uid)}, "/"
        _, users = await self.accounts()
        if user not in users and user == _E2B_USER:
            await self._make_e2b_user()
            _, users = await self.accounts()
        if user not in users:
            message = f"invalid username: there is no user `{user}` in the sandbox"
            raise Failure(Kind.UNAUTHENTICATED, message, remedy="add it to the template")
        return {"uid": users[user][0], "gid": users[user][1]}, users[user][2] or "/"

    async def _make_e2b_user(self) -> None:
        # E2B's own templates have this user, and programs written for them name it.
        names, _ = await self.accounts()
        number = next(each for each in itertools.count(_E2B_USER_ID) if each not in names["passwd"] and each not in names["group"])
        line = f"{_E2B_USER}:x:{number}:{number}::/home/{_E2B_USER}:/bin/bash\n"
        for file, addition in (("/etc/passwd", line), ("/etc/group", f"{_E2B_USER}:x:{number}:\n")):
            await self.write_bytes(file, (await self._text(file)).encode() + addition.encode(), None)
        await self.call("make_dir", {"path": f"/home/{_E2B_USER}", "user": None})
        process = await self.start(["chown", f"{number}:{number}", f"/home/{_E2B_USER}"], user="root")
        async for _ in process.output():
            pass
        self._accounts = None

    async def place(self, path: str, user: str | None) -> tuple[str, dict[str, int]]:
        """An absolute path, and who looks at it; other paths begin at the user's home."""
        who, home = await self.who(user)
        if not path:
            raise Failure(Kind.INVALID, "The path is empty", field="path", remedy="give an absolute path")
        if path == "~" or path.startswith("~/"):
            path = path[2:]
        full = posixpath.normpath(posixpath.join(home, path))
        return ("/" + full.lstrip("/")), who

    # Programs.

    async def start(
        self,
        args: list[str],
        *,
        envs: Mapping[str, str] | None = None,
        user: str | None = None,
        cwd: str | None = None,
        stdin: bool | bytes = False,
        terminal: tuple[int, int] | None = None,
        tag: str | None = None,
        listen: bool = True,
    ) -> Process:
        """Starts a program. `terminal` is rows and columns; with `listen`, somebody will ask for its `output`."""
        who, home = await self.who(user)
        variables = {**config.default_env(who["uid"]), "HOME": home, "USER": user or self._user or "root", **self.envs, **(envs or {})}
        directory = (await self.place(cwd, user))[0] if cwd else await self._begin(home, who)
        theirs: list[int] = []
        readers: dict[int, str] = {}
        ours: int | None = None
        if terminal is not None or stdin is True:
            reader, ours = os.pipe()
            os.set_blocking(ours, False)
            theirs.append(reader)
        else:
            theirs.append(memory_file(stdin) if stdin else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
        for kind in ("pty",) if terminal is not None else ("stdout", "stderr"):
            reader, writer = os.pipe()
            theirs.append(writer)
            readers[reader] = kind
        shown = {"cmd": args[0], "args": args[1:], "envs": dict(envs or {}), "cwd": directory}
        process = Process(shown, tag, terminal is not None, ours, readers)
        params: dict[str, Any] = {"args": args, "env": variables, "workdir": directory, "user": who}
        if terminal is not None:
            params["tty"] = {"rows": terminal[0], "columns": terminal[1]}
        # From here on its end may be told before its start is: `_started` undoes it.
        self._starting += 1
        try:
            pending = self.client.call("exec", params, theirs)
        except BaseException:
            self._starting -= 1
            process.lose(Failure(Kind.INTERNAL, "The program was not started"))
            raise
        finally:
            for descriptor in theirs:
                os.close(descriptor)
        starting = asyncio.ensure_future(self._started(process, pending, listen=listen))
        # Whoever asked may hang up meanwhile: the program is looked after nevertheless.
        await asyncio.shield(starting)
        return process

    async def _started(self, process: Process, pending: Pending[Any], *, listen: bool) -> None:
        try:
            process.pid = (await settle(pending))["pid"]
        except BaseException:
            process.lose(Failure(Kind.INTERNAL, "The program was not started"))
            raise
        finally:
            self._starting -= 1
            early = self._early_ends.pop(process.pid, None)
            if not self._starting:
                self._early_ends.clear()
        self.note("info", f"process {process.pid} started: {process.config['cmd']}", pid=process.pid)
        process.begin(listen=listen)
        if early is not None:
            process.ended(*early)
        else:
            self.processes[process.pid] = process

    async def _begin(self, home: str, who: dict[str, int]) -> str:
        for directory in (self._workdir, home):
            if directory:
                with contextlib.suppress(SandboxException):
                    if (await self.call("stat", {"path": directory, "user": who}))["type"] == "directory":
                        return directory
        return "/"

    async def wait_for(self, pid: int) -> End:
        """Waits for the end of a program that an earlier service started."""
        if pid not in self._waited_for:
            self._waited_for[pid] = self._loop.create_future()
            try:
                await self.call("wait", {"pid": pid})
            except BaseException:
                self._waited_for.pop(pid, None)
                raise
        code, signal = await asyncio.shield(self._waited_for[pid])
        probe = Process({}, None, False, None, {})
        probe.ended(code, signal)
        assert probe.end is not None
        return probe.end

    def process(self, pid: int | None, tag: str | None) -> Process:
        """A program that this service started."""
        for process in self.processes.values():
            if (pid is not None and process.pid == pid) or (pid is None and tag is not None and process.tag == tag):
                return process
        raise Failure(Kind.NOT_FOUND, f"There is no process {pid if pid is not None else tag} that the service started")

    async def signal(self, pid: int, number: int) -> None:
        """Sends a signal to a program and what it started in its group."""
        found = False
        for target in (-pid, pid):
            try:
                await self.call("signal", {"pid": target, "signal": number})
                found = True
                break
            except NotFoundException:
                pass
        if not found:
            raise Failure(Kind.NOT_FOUND, f"There is no process {pid}")

    def kill_soon(self, pid: int) -> None:
        """Kills a program without waiting for that to happen."""
        for target in (-pid, pid):
            self.client.call("signal", {"pid": target, "signal": 9})

    # Files.

    async def read_file(self, path: str, who: dict[str, int] | None) -> AsyncIterator[bytes]:
        """The contents of a file."""
        reader, writer = os.pipe()
        try:
            os.set_blocking(reader, False)
            _enlarge(writer)
            try:
                answer = self.client.call("read_file", {"path": path, "user": who}, [writer], None)
            finally:
                os.close(writer)
            while data := await _read(reader):
                yield data
            # Why it ended: at the end, or for an error.
            await settle(answer)
        finally:
            self._loop.remove_reader(reader)
            os.close(reader)

    async def write_file(self, path: str, who: dict[str, int] | None, descriptor: int) -> None:
        """Writes what the descriptor has into a file, made or emptied first, and makes the directories above it."""
        params = {"path": path, "user": who}
        # The sandbox gets a descriptor that can only be read: the host's disk is not for it to fill.
        readable = os.open(f"/proc/self/fd/{descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        try:
            try:
                await self.call("write_file", params, [readable], None)
            except NotFoundException:
                await self.call("make_dir", {"path": posixpath.dirname(path), "user": who})
                os.lseek(readable, 0, os.SEEK_SET)
                await self.call("write_file", params, [readable], None)
        finally:
            os.close(readable)

    async def write_bytes(self, path: str, data: bytes, who: dict[str, int] | None) -> None:
        """Writes a short file."""
        descriptor = memory_file(data)
        try:
            await self.write_file(path, who, descriptor)
        finally:
            os.close(descriptor)

    async def list_directory(self, path: str, who: dict[str, int], depth: int) -> list[dict[str, Any]]:
        """A directory's entries, and those of the directories in it."""
        answer = await Driven(self.client.ask_at_length("list_dir", {"path": path, "depth": depth, "user": who}))
        return list(answer["entries"])

    async def watch(self, path: str, who: dict[str, int], recursive: bool) -> Watch:
        """Watches a directory."""
        watch = Watch(path)
        answered = asyncio.Event()

        def known(answer: Any) -> None:
            # In the engine's thread, before the first event can come.
            watch.number = answer["watch"]
            self.watches[watch.number] = watch
            self._loop.call_soon_threadsafe(answered.set)

        await settle(self.client.call("watch", {"path": path, "user": who, "recursive": recursive}, on_answer=known))
        await answered.wait()
        return watch

    async def unwatch(self, watch: Watch) -> None:
        """Ends a watch."""
        if self.watches.pop(watch.number, None) is not None:
            await self.call("unwatch", {"watch": watch.number})


async def _until_lost(process: Process) -> AsyncIterator[Output | End]:
    try:
        async for item in process.output():
            yield item
    except (Failure, SandboxException):
        pass  # The sandbox has ended, which is in its log already.


def _enlarge(pipe: int) -> None:
    import fcntl

    try:
        fcntl.fcntl(pipe, _F_SETPIPE_SZ, _PIPE_SIZE)
    except OSError:
        pass  # The user has many large pipes already; a small one works as well.


async def _read(descriptor: int) -> bytes:
    loop = asyncio.get_running_loop()
    while True:
        try:
            return os.read(descriptor, _CHUNK)
        except BlockingIOError:
            ready: asyncio.Future[None] = loop.create_future()
            loop.add_reader(descriptor, fulfil, ready)
            try:
                await ready
            finally:
                loop.remove_reader(descriptor)
