"""E2B's unmodified client against the service: sandboxes, commands, terminals, files."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from e2b import (
    CommandExitException,
    FilesystemEventType,
    FileType,
    InvalidArgumentException,
    NotFoundException,
    PtySize,
    Sandbox,
    SandboxQuery,
    SandboxState,
    TimeoutException,
)
from e2b.exceptions import AuthenticationException, RateLimitException, SandboxException
from running_service import Service

pytestmark = pytest.mark.usefixtures("e2b_environment")


@pytest.fixture
def sandbox(e2b_environment: None) -> Iterator[Sandbox]:
    with Sandbox.create() as sandbox:
        yield sandbox


def test_a_sandbox_lives_and_ends(service: Service) -> None:
    sandbox = Sandbox.create("base", timeout=120, metadata={"kind": "test", "who": "me & you"}, envs={"GREETING": "hello"})
    info = sandbox.get_info()
    assert info.sandbox_id == sandbox.sandbox_id
    assert info.template_id == "base"
    assert info.metadata == {"kind": "test", "who": "me & you"}
    assert info.state == SandboxState.RUNNING
    assert timedelta(seconds=100) < info.end_at - datetime.now(UTC) <= timedelta(seconds=120)
    assert sandbox.is_running()
    assert sandbox.commands.run("echo $GREETING").stdout == "hello\n"
    other = Sandbox.connect(sandbox.sandbox_id)
    assert other.commands.run("hostname").stdout == sandbox.sandbox_id + "\n"
    assert sandbox.kill()
    assert not sandbox.is_running()
    assert not Sandbox.kill(sandbox.sandbox_id)
    with pytest.raises(TimeoutException):
        sandbox.commands.run("true")
    with pytest.raises(NotFoundException):
        Sandbox.connect(sandbox.sandbox_id)
    with pytest.raises(NotFoundException):
        sandbox.get_info()
    assert sandbox.sandbox_id not in service.sandboxes_left()


def test_time_is_up(service: Service) -> None:
    sandbox = Sandbox.create(timeout=60)
    sandbox.set_timeout(1)
    deadline = time.monotonic() + 90
    while sandbox.is_running():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    with pytest.raises(SandboxException, match="24 hours"):
        Sandbox.create(timeout=10**6)


def test_lists_have_filters_and_pages() -> None:
    made = [Sandbox.create(metadata={"batch": "pages", "number": str(number)}) for number in range(3)]
    try:
        paginator = Sandbox.list(SandboxQuery(metadata={"batch": "pages"}), limit=2)
        first = paginator.next_items()
        assert paginator.has_next
        second = paginator.next_items()
        assert not paginator.has_next
        assert [each.sandbox_id for each in first + second] == [each.sandbox_id for each in reversed(made)]
        ascending = Sandbox.list(SandboxQuery(metadata={"batch": "pages"}), order="asc").next_items()
        assert [each.sandbox_id for each in ascending] == [each.sandbox_id for each in made]
        one = Sandbox.list(SandboxQuery(metadata={"batch": "pages", "number": "1"})).next_items()
        assert [each.sandbox_id for each in one] == [made[1].sandbox_id]
        assert Sandbox.list(SandboxQuery(metadata={"batch": "pages"}, state=[SandboxState.PAUSED])).next_items() == []
    finally:
        for each in made:
            each.kill()


def test_commands_end_with_output_and_status(sandbox: Sandbox) -> None:
    result = sandbox.commands.run("echo out; echo err >&2; pwd; whoami")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "out\n/root\nroot\n", "err\n")
    with pytest.raises(CommandExitException) as caught:
        sandbox.commands.run("echo so far; echo why >&2; exit 3")
    assert (caught.value.exit_code, caught.value.stdout, caught.value.stderr) == (3, "so far\n", "why\n")
    assert sandbox.commands.run("pwd", cwd="/tmp").stdout == "/tmp\n"
    assert sandbox.commands.run("echo $A-$B", envs={"A": "1", "B": "x y"}).stdout == "1-x y\n"
    with pytest.raises(InvalidArgumentException):
        sandbox.commands.run("pwd", cwd="/there/is/none")
    assert sandbox.commands.run("cat").stdout == ""
    assert sandbox.commands.run("printf 'ä€😀%.0s' $(seq 20000)").stdout == "ä€😀" * 20000


def test_commands_run_as_users(sandbox: Sandbox) -> None:
    assert sandbox.commands.run("whoami; id -gn; echo $HOME; pwd", user="user").stdout == "user\nuser\n/home/user\n/home/user\n"
    assert sandbox.commands.run("whoami", user="nobody").stdout == "nobody\n"
    sandbox.files.write("mine.txt", "x", user="user")
    info = sandbox.files.get_info("/home/user/mine.txt")
    assert (info.owner, info.group) == ("user", "user")
    with pytest.raises(AuthenticationException, match="invalid username"):
        sandbox.commands.run("true", user="nobody-known")
    with pytest.raises(CommandExitException):
        sandbox.commands.run("echo x > /etc/passwd", user="user")


def test_output_streams_while_the_command_runs(sandbox: Sandbox) -> None:
    seen: list[tuple[float, str]] = []
    started = time.monotonic()
    result = sandbox.commands.run(
        "for i in 1 2 3; do echo $i; sleep 0.3; done; echo e >&2",
        on_stdout=lambda text: seen.append((time.monotonic() - started, text)),
        on_stderr=lambda text: seen.append((0, text)),
    )
    assert result.stdout == "1\n2\n3\n"
    assert [text for _, text in seen] == ["1\n", "2\n", "3\n", "e\n"]
    assert seen[0][0] < 0.6 < seen[2][0]


def test_much_output_arrives_whole(sandbox: Sandbox) -> None:
    result = sandbox.commands.run("head -c 20000000 /dev/zero | tr '\\0' x")
    assert len(result.stdout) == 20_000_000


def test_background_commands(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("read line; echo got $line; read more; echo then $more", background=True, stdin=True)
    assert handle.pid in [each.pid for each in sandbox.commands.list()]
    sandbox.commands.send_stdin(handle.pid, "first\n")
    sandbox.commands.send_stdin(handle.pid, "second\n")
    result = handle.wait()
    assert result.stdout == "got first\nthen second\n"
    assert handle.pid not in [each.pid for each in sandbox.commands.list()]
    with pytest.raises(NotFoundException):
        sandbox.commands.send_stdin(handle.pid, "third\n")
    counting = sandbox.commands.run("wc -c", background=True, stdin=True)
    sandbox.commands.send_stdin(counting.pid, "12345")
    sandbox.commands.close_stdin(counting.pid)
    assert counting.wait().stdout.strip() == "5"


def test_commands_are_killed(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("sleep 100", background=True)
    listed = {each.pid: each for each in sandbox.commands.list()}[handle.pid]
    assert listed.args == ["-l", "-c", "sleep 100"]
    assert handle.kill()
    with pytest.raises(CommandExitException) as caught:
        handle.wait()
    assert caught.value.exit_code != 0
    assert not sandbox.commands.kill(handle.pid)
    assert not sandbox.commands.kill(999_999)


def test_commands_have_a_timeout(sandbox: Sandbox) -> None:
    started = time.monotonic()
    with pytest.raises(TimeoutException):
        sandbox.commands.run("sleep 100", timeout=1)
    assert time.monotonic() - started < 60
    deadline = time.monotonic() + 90
    while sandbox.commands.list():
        assert time.monotonic() < deadline, "the command still runs"
        time.sleep(0.05)


def test_connects_to_a_running_command(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("read x; echo late $x", background=True, stdin=True)
    handle.disconnect()
    again = sandbox.commands.connect(handle.pid)
    sandbox.commands.send_stdin(handle.pid, "word\n")
    assert again.wait().stdout == "late word\n"
    with pytest.raises(NotFoundException):
        sandbox.commands.connect(999_999)


def test_terminals(sandbox: Sandbox) -> None:
    terminal = sandbox.pty.create(PtySize(rows=30, cols=100), timeout=30)
    output: list[bytes] = []
    sandbox.pty.send_stdin(terminal.pid, b"stty size; tty\n")
    time.sleep(0.5)
    sandbox.pty.resize(terminal.pid, PtySize(rows=40, cols=120))
    sandbox.pty.send_stdin(terminal.pid, b"stty size; echo $TERM; exit 7\n")
    with pytest.raises(CommandExitException) as caught:
        terminal.wait(on_pty=output.append)
    text = b"".join(output)
    assert caught.value.exit_code == 7
    assert b"30 100" in text
    assert b"40 120" in text
    assert b"/dev/pts/" in text
    assert b"xterm-256color" in text
    killed = sandbox.pty.create(PtySize(rows=24, cols=80))
    assert sandbox.pty.kill(killed.pid)


def test_files_are_written_and_read(sandbox: Sandbox) -> None:
    written = sandbox.files.write("/tmp/a/b/c.txt", "Grüße\n")
    assert (written.name, written.type, written.path) == ("c.txt", FileType.FILE, "/tmp/a/b/c.txt")
    assert sandbox.files.read("/tmp/a/b/c.txt") == "Grüße\n"
    assert sandbox.commands.run("cat /tmp/a/b/c.txt").stdout == "Grüße\n"
    data = bytes(range(256)) * 40_000
    sandbox.files.write("/tmp/data", data)
    assert sandbox.files.read("/tmp/data", format="bytes") == data
    sandbox.files.write("/tmp/streamed", io.BytesIO(data))
    assert b"".join(sandbox.files.read("/tmp/streamed", format="stream")) == data
    sandbox.files.write("/tmp/zipped", data, gzip=True)
    assert sandbox.files.read("/tmp/zipped", format="bytes", gzip=True) == data
    sandbox.files.write("relative.txt", "x")
    assert sandbox.files.read("/root/relative.txt") == "x"
    sandbox.files.write("/tmp/empty", "")
    assert sandbox.files.read("/tmp/empty") == ""
    many = sandbox.files.write_files([{"path": f"/tmp/many/{number}.txt", "data": f"file {number}"} for number in range(20)])
    assert [each.path for each in many] == [f"/tmp/many/{number}.txt" for number in range(20)]
    assert sandbox.files.read("/tmp/many/13.txt") == "file 13"
    with pytest.raises(NotFoundException):
        sandbox.files.read("/tmp/none")
    with pytest.raises(InvalidArgumentException):
        sandbox.files.read("/tmp")
    with pytest.raises(InvalidArgumentException):
        sandbox.files.write("/tmp", "x")
    with pytest.raises(InvalidArgumentException, match="not supported"):
        sandbox.files.write("/tmp/x", "x", metadata={"a": "b"})


def test_directories(sandbox: Sandbox) -> None:
    files = sandbox.files
    assert files.make_dir("/tmp/d/e")
    assert not files.make_dir("/tmp/d/e")
    files.write("/tmp/d/f", "12345")
    sandbox.commands.run("ln -s f /tmp/d/link; chmod 640 /tmp/d/f")
    entries = {each.name: each for each in files.list("/tmp/d")}
    assert sorted(entries) == ["e", "f", "link"]
    assert (entries["e"].type, entries["f"].type, entries["link"].type) == (FileType.DIR, FileType.FILE, FileType.SYMLINK)
    assert entries["link"].symlink_target == "f"
    info = entries["f"]
    assert (info.size, info.mode, info.permissions, info.owner, info.group) == (5, 0o640, "-rw-r-----", "root", "root")
    assert abs((datetime.now(UTC) - info.modified_time).total_seconds()) < 60
    files.write("/tmp/d/e/deep", "")
    assert "/tmp/d/e/deep" in [each.path for each in files.list("/tmp/d", depth=2)]
    assert files.exists("/tmp/d/f")
    moved = files.rename("/tmp/d/f", "/tmp/d/new/g")
    assert (moved.name, moved.path) == ("g", "/tmp/d/new/g")
    assert not files.exists("/tmp/d/f")
    files.remove("/tmp/d")
    assert not files.exists("/tmp/d")
    files.remove("/tmp/d")
    with pytest.raises(NotFoundException):
        files.list("/tmp/d")
    with pytest.raises(NotFoundException):
        files.rename("/tmp/d", "/tmp/e")
    with pytest.raises(NotFoundException):
        files.get_info("/tmp/d")


def test_watches(sandbox: Sandbox) -> None:
    sandbox.files.make_dir("/tmp/w/sub")
    watch = sandbox.files.watch_dir("/tmp/w", recursive=True, include_entry=True)
    sandbox.files.write("/tmp/w/file", "x")
    sandbox.commands.run("echo y > /tmp/w/sub/inner; mv /tmp/w/file /tmp/w/other; rm /tmp/w/other")
    deadline = time.monotonic() + 90
    events: list[tuple[str, FilesystemEventType]] = []
    while ("other", FilesystemEventType.REMOVE) not in events:
        events += [(each.name, each.type) for each in watch.get_new_events()]
        assert time.monotonic() < deadline, events
        time.sleep(0.02)
    assert ("file", FilesystemEventType.CREATE) in events
    assert ("file", FilesystemEventType.WRITE) in events
    assert ("sub/inner", FilesystemEventType.CREATE) in events
    assert ("file", FilesystemEventType.RENAME) in events
    watch.stop()
    with pytest.raises(NotFoundException):
        sandbox.files.watch_dir("/tmp/none")


def test_urls_of_files_are_signed(sandbox: Sandbox, service: Service) -> None:
    sandbox.files.write("/tmp/signed", "by hash")
    url = sandbox.download_url("/tmp/signed", use_signature_expiration=60)
    headers = {"e2b-sandbox-id": sandbox.sandbox_id}
    assert httpx.get(url, headers=headers).text == "by hash"
    assert httpx.get(url.replace("v1_", "v1_x"), headers=headers).status_code == 401
    assert httpx.get(url.replace("signed", "other"), headers=headers).status_code == 401
    up = sandbox.upload_url("/tmp/up")
    assert httpx.post(up, headers=headers, files={"file": ("/tmp/up", b"upped")}).status_code == 200
    assert sandbox.files.read("/tmp/up") == "upped"


def test_figures_and_what_waits_for_snapshots(sandbox: Sandbox) -> None:
    sandbox.commands.run("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")
    sample = sandbox.get_metrics()[-1]
    assert sample.cpu_count >= 1
    assert 0 < sample.mem_used < sample.mem_total
    assert sample.cpu_used_pct > 0
    for attempt in (sandbox.pause, sandbox.fork, sandbox.create_snapshot):
        with pytest.raises(SandboxException, match="snapshots"):
            attempt()
    assert sandbox.is_running()


def test_the_guests_work_starves_nobody(sandbox: Sandbox) -> None:
    busy = [sandbox.commands.run("while :; do :; done", background=True, timeout=0) for _ in range(8)]
    started = time.monotonic()
    sandbox.files.write("/tmp/quick", "x")
    assert sandbox.files.read("/tmp/quick") == "x"
    assert time.monotonic() - started < 60
    for each in busy:
        each.kill()


def test_many_commands_at_once(sandbox: Sandbox) -> None:
    results: list[str] = []

    def run(number: int) -> None:
        results.append(sandbox.commands.run(f"echo {number}").stdout)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == sorted(f"{number}\n" for number in range(20))


def test_strangers_are_refused(sandbox: Sandbox, service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AuthenticationException):
        Sandbox.create(api_key="e2b_" + "0" * 40)
    status, answer = service.request("POST", "/process.Process/List", {}, headers={"e2b-sandbox-id": sandbox.sandbox_id})
    assert (status, answer["code"]) == (401, "unauthenticated")
    service.request("POST", "/v1/projects", {"name": "narrow", "most_sandboxes": 1})
    _, made = service.request("POST", "/v1/keys", {"name": "k", "role": "user", "project": "narrow"})
    only = Sandbox.create(api_key=made["key"])
    try:
        with pytest.raises(RateLimitException, match="may have 1 sandboxes"):
            Sandbox.create(api_key=made["key"])
        with pytest.raises(NotFoundException):
            Sandbox.connect(sandbox.sandbox_id, api_key=made["key"])
        listed = Sandbox.list(api_key=made["key"]).next_items()
        assert [each.sandbox_id for each in listed] == [only.sandbox_id]
    finally:
        only.kill()
    with pytest.raises(SandboxException, match="no template"):
        Sandbox.create("none-such")
