"""E2B's API inside a sandbox, which its agent would speak; the service speaks it instead, so that the guest's work cannot slow it down."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import hashlib
import hmac
import mimetypes
import posixpath
import stat
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import IO, Any
from urllib.parse import quote

from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from cloudpilot.errors import NotFoundException
from cloudpilot.hosting.agent import Agent, Watch
from cloudpilot.hosting.failures import Failure, Kind
from cloudpilot.hosting.limits import LARGEST_UPLOAD
from cloudpilot.hosting.processes import End, Output, Process
from cloudpilot.service.e2b import connect
from cloudpilot.service.http import Stream as Streamed
from cloudpilot.service.http import reply

DEEPEST_LISTING = 64
MOST_FILES = 1000
"""Files of one upload."""
_SIGNALS = {"SIGNAL_SIGKILL": 9, "SIGNAL_SIGTERM": 15, 9: 9, 15: 15}
_TYPES = {
    "file": ("FILE_TYPE_FILE", stat.S_IFREG),
    "directory": ("FILE_TYPE_DIRECTORY", stat.S_IFDIR),
    "symlink": ("FILE_TYPE_SYMLINK", stat.S_IFLNK),
}
_KEEPALIVE = 50.0
_KILL_PATIENCE = 5.0

Message = dict[str, Any]


class NoSandbox(Failure):
    """The sandbox that a request is for does not run. E2B's own proxy answers so, and its client knows the words."""

    def __init__(self, sandbox_id: str) -> None:
        super().__init__(Kind.UNAVAILABLE, "The sandbox was not found")
        self.sandbox_id = sandbox_id

    def reply(self) -> Response:
        """The answer."""
        return reply({"sandboxId": self.sandbox_id, "message": self.message, "code": 502}, 502)


def sandbox_id_of(request: Request) -> str:
    """Which sandbox a request is for: by header, or by the host's name."""
    name = request.headers.get("e2b-sandbox-id")
    if name is None:
        _, _, name = request.headers.get("host", "").partition(".")[0].partition("-")
    return name


def agent_of(request: Request, signed: str | None = None) -> Agent:
    """What acts in the sandbox that a request is for, if the request may. `signed` says for what a signature in the query would do."""
    state = request.app.state
    sandbox_id = sandbox_id_of(request)
    try:
        agent: Agent = state.sandboxes.get(sandbox_id).inside
    except Failure:
        raise NoSandbox(sandbox_id) from None
    token = state.access.sandbox_token(sandbox_id)
    if hmac.compare_digest(request.headers.get("x-access-token", "").encode(), token.encode()):
        return agent
    if signed is not None and "signature" in request.query_params:
        _check_signature(request, signed, token)
        return agent
    raise Failure(Kind.UNAUTHENTICATED, "The sandbox's access token is missing or wrong", remedy="send it as `X-Access-Token`")


def _check_signature(request: Request, operation: str, token: str) -> None:
    query = request.query_params
    parts = [query.get("path", ""), operation, query.get("username", ""), token]
    expiration = query.get("signature_expiration")
    if expiration is not None:
        parts.append(expiration)
        if not expiration.isdigit() or int(expiration) < time.time():
            raise Failure(Kind.UNAUTHENTICATED, "The signature has expired", field="signature_expiration", remedy="make another")
    digest = base64.b64encode(hashlib.sha256(":".join(parts).encode()).digest()).rstrip(b"=").decode()
    if not hmac.compare_digest(query["signature"].encode(), f"v1_{digest}".encode()):
        raise Failure(Kind.UNAUTHENTICATED, "The signature is wrong", field="signature", remedy="make another")


def _user(request: Request) -> str | None:
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        return base64.b64decode(text).decode().partition(":")[0] or None
    except (ValueError, binascii.Error):
        raise Failure(Kind.UNAUTHENTICATED, "The header `Authorization` is malformed") from None


def _field(message: Message, name: str, kind: type, default: Any = None) -> Any:
    value = message.get(name, default)
    if value is not default and not (isinstance(value, kind) and (kind is bool or not isinstance(value, bool))):
        raise Failure(Kind.INVALID, f"It is not of the type `{kind.__name__}`", field=name)
    return value


def _strings(value: Any, name: str) -> Any:
    texts = [*value, *value.values()] if isinstance(value, dict) else value
    if not all(isinstance(text, str) for text in texts):
        raise Failure(Kind.INVALID, "Something in it is not text", field=name)
    return value


# Programs.


def _selected(agent: Agent, message: Message) -> Process:
    selector = _field(message, "process", dict, {})
    return agent.process(_field(selector, "pid", int), _field(selector, "tag", str))


def _size(message: Message) -> tuple[int, int] | None:
    pty = _field(message, "pty", dict)
    if pty is None:
        return None
    size = _field(pty, "size", dict, {})
    rows, columns = _field(size, "rows", int, 24), _field(size, "cols", int, 80)
    if not (0 < rows < 1 << 16 and 0 < columns < 1 << 16):
        raise Failure(Kind.INVALID, f"A terminal of {rows} rows and {columns} columns is not possible", field="pty.size")
    return rows, columns


def _event(name: str, value: Any) -> bytes:
    return connect.encode({"event": {name: value}})


def _data(output: Output) -> bytes:
    text = b'{"event":{"data":{"%s":"%s"}}}' % (output.kind.encode(), base64.b64encode(output.data))
    return connect.frame(text)


async def _timed(items: AsyncIterator[Output | End], interval: float, deadline: float | None) -> AsyncIterator[Output | End | None]:
    """The items, and none where there was silence for a while."""
    task: asyncio.Task[Output | End] | None = None
    try:
        while True:
            task = task or asyncio.ensure_future(anext(items))
            left = interval if deadline is None else min(interval, deadline - time.monotonic())
            done, _ = await asyncio.wait([task], timeout=max(0.0, left))
            if done:
                try:
                    yield task.result()
                except StopAsyncIteration:
                    return
                task = None
            elif deadline is not None and time.monotonic() >= deadline:
                raise _out_of_time()
            else:
                yield None
    finally:
        if task is not None:
            task.cancel()
            with contextlib.suppress(BaseException):
                await task
        await items.aclose()  # type: ignore[attr-defined]


def _interval(request: Request) -> float:
    text = request.headers.get("keepalive-ping-interval", "")
    return max(1.0, float(text)) if text.isascii() and text.isdigit() else _KEEPALIVE


def _give_up(agent: Agent, process: Process) -> None:
    if agent.processes.get(process.pid) is process:
        process.out_of_time = True
        agent.kill_soon(process.pid)


def _out_of_time() -> Failure:
    return Failure(Kind.TIMEOUT, "The time of the stream was up", remedy="give a longer `timeout`, or 0 for none")


async def _follow(request: Request, process: Process, items: AsyncIterator[Output | End], seconds: float | None) -> AsyncIterator[bytes]:
    yield _event("start", {"pid": process.pid})
    deadline = None if seconds is None else time.monotonic() + seconds
    async for item in _timed(items, _interval(request), deadline):
        if item is None:
            yield _event("keepalive", {})
        elif isinstance(item, Output):
            yield _data(item)
        elif process.out_of_time:
            # Its end may be seen before the stream's own deadline; what matters to the caller is why it ended.
            raise _out_of_time()
        else:
            yield _end_event(item)


def _end_event(end: End) -> bytes:
    value = {"exitCode": end.code, "exited": end.exited, "status": end.status}
    return _event("end", value if end.error is None else {**value, "error": end.error})


async def process_start(request: Request, agent: Agent) -> AsyncIterator[bytes]:
    """`process.Process/Start`."""
    message = await connect.first_message(request)
    given = _field(message, "process", dict, {})
    command = _field(given, "cmd", str, "")
    if not command:
        raise Failure(Kind.INVALID, "There is no program to start", field="process.cmd")
    args = _strings(_field(given, "args", list, []), "process.args")
    seconds = connect.deadline_of(request)
    stdin = bool(_field(message, "stdin", bool, True))
    process = await agent.start(
        [command, *args],
        envs=_strings(_field(given, "envs", dict, {}), "process.envs"),
        user=_user(request),
        cwd=_field(given, "cwd", str) or None,
        stdin=stdin,
        terminal=_size(message),
        tag=_field(message, "tag", str),
    )
    if seconds is not None:
        # The time is the program's: the stream may end before, or its client hang up.
        loop = asyncio.get_running_loop()
        loop.call_later(seconds, _give_up, agent, process)
    return _follow(request, process, process.output(), seconds)


async def process_connect(request: Request, agent: Agent) -> AsyncIterator[bytes]:
    """`process.Process/Connect`."""
    message = await connect.first_message(request)
    seconds = connect.deadline_of(request)
    try:
        process = _selected(agent, message)
    except Failure:
        pid = _field(_field(message, "process", dict, {}), "pid", int)
        if pid is None:
            raise
        return await _follow_older(agent, pid)
    return _follow(request, process, process.listen().items(), seconds)


async def _follow_older(agent: Agent, pid: int) -> AsyncIterator[bytes]:
    """A program that an earlier service started: its output is lost, its end is not."""
    waiting = asyncio.ensure_future(agent.wait_for(pid))
    done, _ = await asyncio.wait([waiting], timeout=0.2)
    if done:
        waiting.result()

    async def events() -> AsyncIterator[bytes]:
        yield _event("start", {"pid": pid})
        yield _end_event(await waiting)

    return events()


async def process_list(request: Request, agent: Agent, message: Message) -> Message:
    """`process.Process/List`."""
    processes = sorted(agent.processes.values(), key=lambda each: each.pid)
    return {
        "processes": [{"config": each.config, "pid": each.pid, **({"tag": each.tag} if each.tag is not None else {})} for each in processes]
    }


def _input(message: Message) -> bytes:
    given = _field(message, "input", dict, {})
    try:
        return base64.b64decode(given.get("stdin", given.get("pty", "")), validate=True)
    except (ValueError, TypeError):
        raise Failure(Kind.INVALID, "It is not base64", field="input") from None


async def process_send_input(request: Request, agent: Agent, message: Message) -> Message:
    """`process.Process/SendInput`."""
    process = _selected(agent, message)
    try:
        await asyncio.wait_for(process.write(_input(message)), connect.deadline_of(request))
    except TimeoutError:
        raise Failure(Kind.TIMEOUT, f"The process {process.pid} does not read its standard input") from None
    return {}


async def process_stream_input(request: Request, agent: Agent) -> AsyncIterator[bytes]:
    """`process.Process/StreamInput`."""
    process: Process | None = None
    async for message in connect.messages(request):
        event = message.get("event") if isinstance(message.get("event"), dict) else message
        assert isinstance(event, dict)
        if "start" in event:
            process = _selected(agent, _field(event, "start", dict, {}))
        elif "data" in event:
            if process is None:
                raise Failure(Kind.INVALID, "The stream does not begin with a start", field="start")
            await process.write(_input(_field(event, "data", dict, {})))

    async def answer() -> AsyncIterator[bytes]:
        yield connect.encode({})

    return answer()


async def process_send_signal(request: Request, agent: Agent, message: Message) -> Message:
    """`process.Process/SendSignal`."""
    number = _SIGNALS.get(message.get("signal", ""))
    if number is None:
        raise Failure(Kind.INVALID, "It is neither SIGNAL_SIGKILL nor SIGNAL_SIGTERM", field="signal")
    selector = _field(message, "process", dict, {})
    pid = _field(selector, "pid", int)
    if pid is None or pid in agent.processes:
        pid = _selected(agent, message).pid
    await agent.signal(pid, number)
    if number == _SIGNALS["SIGNAL_SIGKILL"] and pid in agent.processes:
        # Whoever lists processes next must not find it.
        deadline = time.monotonic() + _KILL_PATIENCE
        while pid in agent.processes and time.monotonic() < deadline:  # noqa: ASYNC110 -- rare and short
            await asyncio.sleep(0.002)
    return {}


async def process_close_stdin(request: Request, agent: Agent, message: Message) -> Message:
    """`process.Process/CloseStdin`."""
    process = _selected(agent, message)
    if process.terminal:
        raise Failure(Kind.INVALID, "A terminal has no end of input", remedy="send Ctrl+D, the character 4")
    process.close_stdin()
    return {}


async def process_update(request: Request, agent: Agent, message: Message) -> Message:
    """`process.Process/Update`."""
    process = _selected(agent, message)
    size = _size(message)
    if size is not None:
        await agent.call("resize", {"pid": process.pid, "rows": size[0], "columns": size[1]})
    return {}


# Files.


async def _entry(agent: Agent, answer: Message) -> Message:
    names, _ = await agent.accounts()
    kind, bits = _TYPES.get(answer["type"], ("FILE_TYPE_UNSPECIFIED", 0))
    mode = int(answer["mode"]) & 0o7777
    result = {
        "name": answer["name"],
        "type": kind,
        "path": answer["path"],
        "size": str(answer["size"]),
        "mode": mode,
        "permissions": stat.filemode(bits | mode),
        "owner": names["passwd"].get(answer["uid"], str(answer["uid"])),
        "group": names["group"].get(answer["gid"], str(answer["gid"])),
        "modifiedTime": _stamp(int(answer["mtime_ns"])),
    }
    if answer.get("target") is not None:
        result |= {"symlinkTarget": answer["target"], "isSymlink": True}
    return result


def _stamp(nanoseconds: int) -> str:
    try:
        whole = datetime.fromtimestamp(nanoseconds // 10**9, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    except (ValueError, OverflowError):
        return "1970-01-01T00:00:00Z"
    return f"{whole}.{nanoseconds % 10**9:09d}Z"


async def _stat(agent: Agent, path: str, who: dict[str, int]) -> Message:
    return await _entry(agent, await agent.call("stat", {"path": path, "user": who}))


async def filesystem_stat(request: Request, agent: Agent, message: Message) -> Message:
    """`filesystem.Filesystem/Stat`."""
    path, who = await agent.place(_field(message, "path", str, ""), _user(request))
    return {"entry": await _stat(agent, path, who)}


async def filesystem_list(request: Request, agent: Agent, message: Message) -> Message:
    """`filesystem.Filesystem/ListDir`."""
    path, who = await agent.place(_field(message, "path", str, ""), _user(request))
    depth = _field(message, "depth", int, 1) or 1
    if depth > DEEPEST_LISTING:
        raise Failure(Kind.INVALID, f"A listing is at most {DEEPEST_LISTING} levels deep", field="depth")
    entries = await agent.list_directory(path, who, depth)
    return {"entries": [await _entry(agent, each) for each in entries]}


async def filesystem_make_dir(request: Request, agent: Agent, message: Message) -> Message:
    """`filesystem.Filesystem/MakeDir`."""
    path, who = await agent.place(_field(message, "path", str, ""), _user(request))
    answer = await agent.call("make_dir", {"path": path, "user": who})
    if not answer["created"]:
        raise Failure(Kind.EXISTS, f"The directory `{path}` exists already")
    return {"entry": await _stat(agent, path, who)}


async def filesystem_move(request: Request, agent: Agent, message: Message) -> Message:
    """`filesystem.Filesystem/Move`."""
    source, who = await agent.place(_field(message, "source", str, ""), _user(request))
    destination, _ = await agent.place(_field(message, "destination", str, ""), _user(request))
    params = {"from": source, "to": destination, "user": who}
    try:
        await agent.call("rename", params)
    except NotFoundException:
        await agent.call("stat", {"path": source, "user": who})
        await agent.call("make_dir", {"path": posixpath.dirname(destination), "user": who})
        await agent.call("rename", params)
    return {"entry": await _stat(agent, destination, who)}


async def filesystem_remove(request: Request, agent: Agent, message: Message) -> Message:
    """`filesystem.Filesystem/Remove`: what is not there is as good as removed."""
    path, who = await agent.place(_field(message, "path", str, ""), _user(request))
    with contextlib.suppress(NotFoundException):
        await agent.call("remove", {"path": path, "user": who})
    return {}


async def _watch(request: Request, agent: Agent, message: Message) -> tuple[Watch, dict[str, int], bool]:
    path, who = await agent.place(_field(message, "path", str, ""), _user(request))
    found = await agent.call("stat", {"path": path, "user": who})
    if found["type"] not in ("directory", "symlink"):
        raise Failure(Kind.INVALID, f"`{path}` is not a directory", field="path")
    watch = await agent.watch(path, who, bool(_field(message, "recursive", bool, False)))
    return watch, who, bool(_field(message, "includeEntry", bool, False))


async def _file_event(agent: Agent, watch: Watch, who: dict[str, int], with_entry: bool, event: Message) -> Message:
    result: Message = {"name": event["name"], "type": f"EVENT_TYPE_{event['type'].upper()}"}
    if with_entry:
        with contextlib.suppress(Exception):
            result["entry"] = await _stat(agent, posixpath.join(watch.path, event["name"]), who)
    return result


async def filesystem_watch(request: Request, agent: Agent) -> AsyncIterator[bytes]:
    """`filesystem.Filesystem/WatchDir`."""
    message = await connect.first_message(request)
    watch, who, with_entry = await _watch(request, agent, message)
    seconds, interval = connect.deadline_of(request), _interval(request)

    async def events() -> AsyncIterator[bytes]:
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            yield _watch_event("start", {})
            while True:
                while watch.events:
                    yield _watch_event("filesystem", await _file_event(agent, watch, who, with_entry, watch.events.popleft()))
                if watch.lost is not None:
                    raise watch.lost
                watch.news.clear()
                left = interval if deadline is None else min(interval, deadline - time.monotonic())
                try:
                    await asyncio.wait_for(watch.news.wait(), max(0.0, left))
                except TimeoutError:
                    if deadline is not None and time.monotonic() >= deadline:
                        raise Failure(Kind.TIMEOUT, "The time of the watch was up", remedy="give a longer `timeout`") from None
                    yield _watch_event("keepalive", {})
        finally:
            with contextlib.suppress(Exception):
                await asyncio.shield(asyncio.ensure_future(agent.unwatch(watch)))

    return events()


def _watch_event(name: str, value: Message) -> bytes:
    return connect.encode({name: value})


def _watcher(agent: Agent, message: Message) -> tuple[Watch, dict[str, int], bool]:
    name = _field(message, "watcherId", str, "")
    number = int(name) if name.isascii() and name.isdigit() else -1
    watch = agent.watches.get(number)
    if watch is None or watch.asker is None:
        raise Failure(Kind.NOT_FOUND, f"There is no watcher `{name}`", field="watcherId")
    return watch, watch.asker[0], watch.asker[1]


async def filesystem_create_watcher(request: Request, agent: Agent, message: Message) -> Message:
    """`filesystem.Filesystem/CreateWatcher`."""
    watch, who, with_entry = await _watch(request, agent, message)
    watch.asker = who, with_entry
    return {"watcherId": str(watch.number)}


async def filesystem_watcher_events(request: Request, agent: Agent, message: Message) -> Message:
    """`filesystem.Filesystem/GetWatcherEvents`."""
    watch, who, with_entry = _watcher(agent, message)
    events = list(watch.events)
    watch.events.clear()
    return {"events": [await _file_event(agent, watch, who, with_entry, each) for each in events]}


async def filesystem_remove_watcher(request: Request, agent: Agent, message: Message) -> Message:
    """`filesystem.Filesystem/RemoveWatcher`."""
    watch, _, _ = _watcher(agent, message)
    await agent.unwatch(watch)
    return {}


# Contents of files.


async def download(request: Request) -> Response:
    """`GET /files`."""
    agent = agent_of(request, "read")
    path, who = await agent.place(request.query_params.get("path", ""), request.query_params.get("username"))
    chunks = agent.read_file(path, who)
    # Whether there is such a file is known before the answer begins.
    first = await anext(chunks, b"")

    async def contents() -> AsyncIterator[bytes]:
        try:
            yield first
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]

    media = mimetypes.guess_type(path)[0] or "application/octet-stream"
    disposition = f"inline; filename*=utf-8''{quote(posixpath.basename(path))}"
    return Streamed(contents(), media_type=media.partition(";")[0], headers={"Content-Disposition": disposition})


def _too_large() -> Failure:
    return Failure(Kind.TOO_LARGE, f"An upload has at most {LARGEST_UPLOAD >> 30} GiB", remedy="send it in parts")


async def _spool(request: Request) -> IO[bytes]:
    """The body in a file of the host: a client that is slow or hangs up keeps nothing of the sandbox busy."""
    unzip = zlib.decompressobj(31) if request.headers.get("content-encoding") == "gzip" else None
    file = tempfile.TemporaryFile()  # noqa: SIM115 -- the caller closes it
    try:
        size = 0
        async for chunk in request.stream():
            while chunk:
                data = chunk if unzip is None else unzip.decompress(chunk, 1 << 20)
                chunk = b"" if unzip is None else unzip.unconsumed_tail  # noqa: PLW2901 -- what is left of it
                size += len(data)
                if size > LARGEST_UPLOAD:
                    raise _too_large()
                file.write(data)
        if unzip is not None and not unzip.eof:
            raise Failure(Kind.INVALID, "The body is cut short", remedy="send all of it")
        file.flush()
    except zlib.error as error:
        file.close()
        raise Failure(Kind.INVALID, f"The body is not gzip: {error}") from None
    except BaseException:
        file.close()
        raise
    return file


async def upload(request: Request) -> Response:
    """`POST /files`: one body, or many files in a form."""
    agent = agent_of(request, "write")
    given, user = request.query_params.get("path"), request.query_params.get("username")
    if any(name.startswith("x-metadata-") for name in request.headers):
        raise Failure(Kind.INVALID, "Metadata of files is not supported", field="metadata", remedy="leave it out")
    if int(request.headers.get("content-length") or 0) > LARGEST_UPLOAD:
        raise _too_large()
    written = []
    if request.headers.get("content-type", "").startswith("multipart/form-data"):
        async with request.form(max_files=MOST_FILES, max_fields=MOST_FILES) as form:
            files = [value for name, value in form.multi_items() if name == "file" and isinstance(value, UploadFile)]
            if not files:
                raise Failure(Kind.INVALID, "The form has no file", field="file", remedy="name the parts `file`")
            for file in files:
                path = given if given and len(files) == 1 else file.filename or ""
                file.file.rollover()  # type: ignore[attr-defined]
                file.file.flush()
                written.append(await _write(agent, path, user, file.file.fileno()))
    else:
        with await _spool(request) as spooled:
            written.append(await _write(agent, given or "", user, spooled.fileno()))
    return reply(written)


async def _write(agent: Agent, given: str, user: str | None, descriptor: int) -> Message:
    path, who = await agent.place(given, user)
    await agent.write_file(path, who, descriptor)
    return {"name": posixpath.basename(path), "type": "file", "path": path}


async def health(request: Request) -> Response:
    """`GET /health`: of the sandbox that is named, or of the service."""
    if "e2b-sandbox-id" in request.headers:
        try:
            request.app.state.sandboxes.get(sandbox_id_of(request)).inside  # noqa: B018 -- it raises
        except Failure:
            return NoSandbox(sandbox_id_of(request)).reply()
    return Response(status_code=204)


async def envs(request: Request) -> Response:
    """`GET /envs`."""
    return reply(agent_of(request).envs)


Unary = Callable[[Request, Agent, Message], Awaitable[Message]]
Stream = Callable[[Request, Agent], Awaitable[AsyncIterator[bytes]]]


def _unary(handler: Unary) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        try:
            agent = agent_of(request)
            return reply(await handler(request, agent, await connect.message(request)))
        except NoSandbox as error:
            return error.reply()
        except ClientDisconnect:
            raise
        except Exception as error:
            return connect.error_reply(connect.failure_of(error))

    return serve


def _stream(handler: Stream) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        try:
            return connect.stream(await handler(request, agent_of(request)))
        except NoSandbox as error:
            return error.reply()
        except ClientDisconnect:
            raise
        except Exception as error:
            return connect.refused_stream(connect.failure_of(error))

    return serve


def routes() -> list[Route]:
    """The API's routes."""
    unary: dict[str, Unary] = {
        "process.Process/List": process_list,
        "process.Process/SendInput": process_send_input,
        "process.Process/SendSignal": process_send_signal,
        "process.Process/CloseStdin": process_close_stdin,
        "process.Process/Update": process_update,
        "filesystem.Filesystem/Stat": filesystem_stat,
        "filesystem.Filesystem/ListDir": filesystem_list,
        "filesystem.Filesystem/MakeDir": filesystem_make_dir,
        "filesystem.Filesystem/Move": filesystem_move,
        "filesystem.Filesystem/Remove": filesystem_remove,
        "filesystem.Filesystem/CreateWatcher": filesystem_create_watcher,
        "filesystem.Filesystem/GetWatcherEvents": filesystem_watcher_events,
        "filesystem.Filesystem/RemoveWatcher": filesystem_remove_watcher,
    }
    streams: dict[str, Stream] = {
        "process.Process/Start": process_start,
        "process.Process/Connect": process_connect,
        "process.Process/StreamInput": process_stream_input,
        "filesystem.Filesystem/WatchDir": filesystem_watch,
    }
    return [
        *(Route(f"/{name}", _unary(handler), methods=["POST"]) for name, handler in unary.items()),
        *(Route(f"/{name}", _stream(handler), methods=["POST"]) for name, handler in streams.items()),
        Route("/files", download, methods=["GET"]),
        Route("/files", upload, methods=["POST"]),
        Route("/health", health, methods=["GET"]),
        Route("/envs", envs, methods=["GET"]),
    ]
