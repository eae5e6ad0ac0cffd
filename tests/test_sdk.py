"""`Sandbox`, from outside: E2B's names and meanings."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from harness import Pilot, eventually, sandboxes_left

from cloudpilot import (
    CommandExitException,
    FileExistsException,
    FilesystemEventType,
    FileType,
    InvalidArgumentException,
    NotFoundException,
    PermissionDeniedException,
    PtySize,
    Sandbox,
    SandboxEndedException,
    SandboxException,
    TimeoutException,
    WriteEntry,
)


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox.create(timeout=120) as made:
        yield made


def test_the_readmes_example(sandbox: Sandbox) -> None:
    result = sandbox.commands.run("python3 -c 'print(6*7)'")
    assert (result.stdout, result.stderr, result.exit_code, result.error) == ("42\n", "", 0, None)
    sandbox.files.write("/tmp/a.txt", "hello")
    assert sandbox.files.read("/tmp/a.txt") == "hello"
    assert "a.txt" in [entry.name for entry in sandbox.files.list("/tmp")]
    handle = sandbox.commands.run("sleep 60", background=True)
    assert handle.kill()


def test_a_failing_command_raises(sandbox: Sandbox) -> None:
    with pytest.raises(CommandExitException) as caught:
        sandbox.commands.run("echo out; echo err >&2; exit 3")
    error = caught.value
    assert (error.stdout, error.stderr, error.exit_code, error.error) == ("out\n", "err\n", 3, None)
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.stdout, copy.exit_code) == ("out\n", 3)


def test_a_command_ended_by_a_signal(sandbox: Sandbox) -> None:
    with pytest.raises(CommandExitException) as caught:
        sandbox.commands.run("kill -TERM $$")
    assert caught.value.exit_code == 143
    assert caught.value.error is not None
    assert "SIGTERM" in caught.value.error


def test_environment_user_and_directory() -> None:
    with Sandbox.create(envs={"A": "1", "B": "2"}, cwd="/usr") as sandbox:
        result = sandbox.commands.run("echo $A$B$C $PWD $(id -u)", envs={"B": "3", "C": "4"})
        assert result.stdout == "134 /usr 0\n"
        assert sandbox.commands.run("pwd; id -u; id -g", cwd="/tmp", user="1000:7").stdout == "/tmp\n1000\n7\n"
        assert sandbox.commands.run("id -un", user="nobody").stdout == "nobody\n"
        with pytest.raises(InvalidArgumentException):
            sandbox.commands.run("true", user="no-such-user")


def test_callbacks_get_output_as_it_comes(sandbox: Sandbox) -> None:
    seen: list[tuple[str, str, float]] = []
    begin = time.monotonic()
    sandbox.commands.run(
        "echo one; sleep 0.5; echo two >&2",
        on_stdout=lambda text: seen.append(("out", text, time.monotonic() - begin)),
        on_stderr=lambda text: seen.append(("err", text, time.monotonic() - begin)),
    )
    assert [each[:2] for each in seen] == [("out", "one\n"), ("err", "two\n")]
    assert seen[1][2] - seen[0][2] > 0.3


def test_characters_are_not_cut(sandbox: Sandbox) -> None:
    result = sandbox.commands.run(r"printf '\303'; sleep 0.2; printf '\274\n'; printf '\377'")
    assert result.stdout == "ü\n\ufffd"


def test_much_output(sandbox: Sandbox) -> None:
    result = sandbox.commands.run("head -c 10000000 /dev/zero | tr '\\0' x; head -c 1000000 /dev/zero | tr '\\0' y >&2")
    assert (len(result.stdout), len(result.stderr)) == (10_000_000, 1_000_000)


def test_standard_input(sandbox: Sandbox) -> None:
    assert sandbox.commands.run("cat", stdin="given").stdout == "given"
    assert sandbox.commands.run("cat").stdout == ""
    handle = sandbox.commands.run("read line; echo got $line; cat", background=True, stdin=True)
    sandbox.commands.send_stdin(handle.pid, "a line\n")
    assert next(iter(handle)) == ("got a line\n", None, None)
    sandbox.commands.send_stdin(handle.pid, b"more")
    sandbox.commands.close_stdin(handle.pid)
    assert handle.wait().stdout == "got a line\nmore"
    with pytest.raises(NotFoundException):
        sandbox.commands.send_stdin(handle.pid, "too late")


def test_a_command_has_a_timeout(sandbox: Sandbox) -> None:
    begin = time.monotonic()
    with pytest.raises(TimeoutException):
        sandbox.commands.run("sleep 600", timeout=0.5)
    assert time.monotonic() - begin < 90
    eventually(lambda: "sleep" not in str(sandbox.commands.list()))


def test_background_commands(sandbox: Sandbox) -> None:
    handle = sandbox.commands.run("echo started; sleep 60", background=True)
    assert next(iter(handle))[0] == "started\n"
    assert handle.pid in [process.pid for process in sandbox.commands.list()]
    assert handle.exit_code is None
    again = sandbox.commands.connect(handle.pid)
    assert sandbox.commands.kill(handle.pid)
    with pytest.raises(CommandExitException) as caught:
        handle.wait()
    assert caught.value.exit_code == 137
    assert handle.exit_code == 137
    assert again.pid == handle.pid
    assert not handle.kill()
    assert not sandbox.commands.kill(99999)
    with pytest.raises(NotFoundException):
        sandbox.commands.connect(99999)


def test_many_commands_at_once(sandbox: Sandbox) -> None:
    handles = [sandbox.commands.run(f"sleep 0.2; echo {number}", background=True) for number in range(20)]
    assert [handle.wait().stdout for handle in handles] == [f"{number}\n" for number in range(20)]


def test_threads_share_a_sandbox(sandbox: Sandbox) -> None:
    results: dict[int, str] = {}

    def work(number: int) -> None:
        results[number] = sandbox.commands.run(f"echo {number}").stdout

    threads = [threading.Thread(target=work, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert results == {number: f"{number}\n" for number in range(10)}


def test_a_daemon_outlives_its_command(sandbox: Sandbox) -> None:
    begin = time.monotonic()
    sandbox.commands.run("(sleep 1; echo late > /tmp/late; sleep 100) &")
    assert time.monotonic() - begin < 90
    eventually(lambda: sandbox.files.exists("/tmp/late"))


def test_files(sandbox: Sandbox) -> None:
    files = sandbox.files
    info = files.write("/tmp/new/deep/file", b"\0\xff")
    assert (info.name, info.type, info.path) == ("file", FileType.FILE, "/tmp/new/deep/file")
    assert files.read("/tmp/new/deep/file", format="bytes") == b"\0\xff"
    assert files.exists("/tmp/new/deep")
    assert not files.exists("/tmp/new/nothing")
    assert not files.exists("/tmp/new/deep/file/below")
    assert files.make_dir("/tmp/made/too")
    assert not files.make_dir("/tmp/made/too")
    entry = files.get_info("/tmp/new/deep/file")
    assert (entry.size, entry.type, entry.mode, entry.permissions, entry.uid) == (2, FileType.FILE, 0o644, "-rw-r--r--", 0)
    assert abs(entry.modified_time.timestamp() - time.time()) < 60
    assert files.rename("/tmp/new/deep/file", "/tmp/new/renamed").name == "renamed"
    assert [each.path for each in files.list("/tmp/new", depth=2)] == ["/tmp/new/deep", "/tmp/new/renamed"]
    sandbox.commands.run("ln -s renamed /tmp/new/link")
    assert files.get_info("/tmp/new/link").symlink_target == "renamed"
    files.remove("/tmp/new")
    assert not files.exists("/tmp/new")
    with pytest.raises(NotFoundException):
        files.remove("/tmp/new")
    with pytest.raises(NotFoundException):
        files.read("/tmp/new")
    with pytest.raises(InvalidArgumentException):
        files.read("/tmp")
    with pytest.raises(InvalidArgumentException):
        files.write("relative", "x")
    with pytest.raises((FileExistsException, InvalidArgumentException)):
        files.make_dir("/etc/passwd")


def test_large_files_pass_through(sandbox: Sandbox) -> None:
    data = os.urandom(1 << 20) * 24
    sandbox.files.write("/tmp/large", io.BytesIO(data))
    assert sandbox.files.read("/tmp/large", format="bytes") == data
    assert b"".join(sandbox.files.read("/tmp/large", format="stream")) == data
    assert sandbox.commands.run("stat -c %s /tmp/large").stdout == f"{len(data)}\n"


def test_several_files_at_once(sandbox: Sandbox) -> None:
    written = sandbox.files.write_files([WriteEntry("/tmp/1", "one"), {"path": "/tmp/2", "data": io.StringIO("two")}])
    assert [info.path for info in written] == ["/tmp/1", "/tmp/2"]
    assert sandbox.files.read("/tmp/2") == "two"


def test_a_stream_may_be_left(sandbox: Sandbox) -> None:
    sandbox.files.write("/tmp/large", bytes(8 << 20))
    stream = sandbox.files.read("/tmp/large", format="stream")
    assert set(next(stream)) == {0}
    stream.close()  # type: ignore[attr-defined]
    assert sandbox.commands.run("echo fine").stdout == "fine\n"


def test_long_listings(sandbox: Sandbox) -> None:
    sandbox.commands.run("mkdir /tmp/many; cd /tmp/many; seq -f 'a-file-with-a-rather-long-name-%05g' 3000 | xargs touch")
    assert len(sandbox.files.list("/tmp/many")) == 3000


def test_the_rights_of_users_count(sandbox: Sandbox) -> None:
    sandbox.files.write("/tmp/mine", "x")
    sandbox.commands.run("chmod 600 /tmp/mine")
    with pytest.raises(PermissionDeniedException):
        sandbox.files.read("/tmp/mine", user="1000")
    with pytest.raises(PermissionDeniedException):
        sandbox.files.write("/etc/new", "x", user="nobody")
    sandbox.files.write("/tmp/theirs", "x", user="1000:100")
    entry = sandbox.files.get_info("/tmp/theirs")
    assert (entry.uid, entry.gid) == (1000, 100)


def test_watching_a_directory(sandbox: Sandbox) -> None:
    sandbox.files.make_dir("/tmp/watched")
    watch = sandbox.files.watch_dir("/tmp/watched")
    sandbox.files.write("/tmp/watched/a", "x")
    sandbox.files.remove("/tmp/watched/a")
    seen = []

    def complete() -> bool:
        seen.extend(watch.get_new_events())
        return any(event.type is FilesystemEventType.REMOVE for event in seen)

    eventually(complete)
    kinds = [event.type for event in seen if event.name == "a"]
    assert kinds[0] is FilesystemEventType.CREATE
    assert FilesystemEventType.WRITE in kinds
    watch.stop()
    sandbox.files.write("/tmp/watched/b", "x")
    time.sleep(0.2)
    assert watch.get_new_events() == []


def test_terminal(sandbox: Sandbox) -> None:
    handle = sandbox.pty.create(PtySize(rows=30, cols=90), envs={"PS1": "> "})
    sandbox.pty.send_stdin(handle.pid, b"stty size; tty\n")
    sandbox.pty.resize(handle.pid, PtySize(rows=31, cols=91))
    sandbox.pty.send_stdin(handle.pid, b"stty size; exit 4\n")
    seen = b"".join(data for _, _, data in handle if data is not None)
    assert b"/dev/pts/" in seen
    assert b"31 91" in seen
    assert handle.exit_code == 4
    with pytest.raises(CommandExitException):
        handle.wait()


def test_life(sandbox: Sandbox, pilot: Pilot) -> None:
    assert sandbox.is_running()
    info = sandbox.get_info()
    assert info.sandbox_id == sandbox.sandbox_id
    assert info.end_at is not None
    assert 110 < info.end_at.timestamp() - info.started_at.timestamp() < 130
    sandbox.set_timeout(20)
    assert [each.sandbox_id for each in Sandbox.list()] == [sandbox.sandbox_id]
    assert pilot("ps", "-q").stdout.decode().split() == [sandbox.sandbox_id]
    assert sandbox.kill()
    assert not sandbox.kill()
    assert not sandbox.is_running()
    assert Sandbox.list() == []
    with pytest.raises(SandboxEndedException):
        sandbox.commands.run("true")
    with pytest.raises(SandboxEndedException):
        sandbox.get_info()


def test_metadata_and_connect() -> None:
    with Sandbox.create(metadata={"job": "7"}, name="named") as sandbox:
        again = Sandbox.connect(sandbox.sandbox_id)
        assert Sandbox.connect("named").sandbox_id == sandbox.sandbox_id
        for name in ("named", sandbox.sandbox_id, "", "-x", "a\nb"):
            with pytest.raises(InvalidArgumentException):
                Sandbox.create(name=name)
        assert again.get_info().metadata == {"job": "7"}
        sandbox.files.write("/tmp/x", "y")
        assert again.files.read("/tmp/x") == "y"


def test_connecting_to_anothers_sandbox(pilot: Pilot) -> None:
    assert pilot.run("--detach", "--name", "box", "sleep", "1000").returncode == 0
    sandbox = Sandbox.connect("box")
    assert sandbox.commands.run("echo hello").stdout == "hello\n"
    with pytest.raises(InvalidArgumentException):
        sandbox.set_timeout(5)
    assert sandbox.kill()
    assert not sandbox.is_running()
    with pytest.raises(NotFoundException):
        Sandbox.connect("box")


def test_connecting_often_takes_one_connection(pilot: Pilot) -> None:
    assert pilot.run("--detach", "--name", "box", "sleep", "1000").returncode == 0
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(100):
        assert Sandbox.connect("box").is_running()
    assert len(os.listdir("/proc/self/fd")) <= before + 8
    assert Sandbox.connect("box").kill()


def test_a_sandbox_has_a_timeout() -> None:
    sandbox = Sandbox.create(timeout=0.5)
    begin = time.monotonic()
    with pytest.raises(TimeoutException):
        sandbox.commands.run("sleep 60")
    assert time.monotonic() - begin < 90
    assert not sandbox.is_running()


@pytest.mark.parametrize("when", ["running", "reading", "idle"])
def test_a_sandbox_that_dies_raises_at_once(sandbox: Sandbox, pilot: Pilot, when: str) -> None:
    import json
    import signal

    sandbox.files.write("/tmp/large", bytes(8 << 20))
    stream = sandbox.files.read("/tmp/large", format="stream")
    next(stream)
    kernel = json.loads(pilot("ps", "--json").stdout)[0]["kernel_pid"]
    if when != "idle":
        threading.Timer(0.5, os.kill, (kernel, signal.SIGKILL)).start()
    else:
        os.kill(kernel, signal.SIGKILL)
    begin = time.monotonic()
    with pytest.raises(SandboxEndedException):
        if when == "reading":
            time.sleep(1)
            for _ in stream:
                pass
        else:
            sandbox.commands.run("sleep 60")
    assert time.monotonic() - begin < 90


def test_limits_are_checked() -> None:
    for options in ({"memory": "1k"}, {"memory": "lots"}, {"network": "bridge"}, {"rootfs": "/no/such/root"}, {"cpus": 0}):
        with pytest.raises(SandboxException):
            Sandbox.create(**options)  # type: ignore[arg-type]


def test_volumes(tmp_path: object) -> None:
    with Sandbox.create(volumes={str(tmp_path): "/data"}) as sandbox:
        sandbox.files.write("/data/x", "from inside")
    with open(f"{tmp_path}/x", encoding="utf-8") as file:
        assert file.read() == "from inside"


def test_descriptors_and_threads_are_given_back() -> None:
    def once() -> None:
        with Sandbox.create() as sandbox:
            sandbox.commands.run("echo x")
            sandbox.files.write("/tmp/x", "y")
            sandbox.files.read("/tmp/x")

    once()
    before = len(os.listdir("/proc/self/fd")), threading.active_count()
    for _ in range(5):
        once()
    eventually(lambda: (len(os.listdir("/proc/self/fd")), threading.active_count()) <= before)


def test_importing_is_quick() -> None:
    def measure(statement: str) -> float:
        """Processor time, which other work of the host does not change much."""
        times = []
        for _ in range(7):
            child = os.posix_spawn(sys.executable, [sys.executable, "-c", statement], os.environ)
            _, status, usage = os.wait4(child, 0)
            assert status == 0
            times.append(usage.ru_utime + usage.ru_stime)
        return min(times)

    assert measure("import cloudpilot") - measure("pass") < 0.06


def loaded(statement: str) -> list[str]:
    """Modules that a statement loads."""
    code = f"{statement}; import sys; print(*sys.modules)"
    return subprocess.run([sys.executable, "-c", code], check=True, timeout=20, capture_output=True, text=True).stdout.split()


def test_all_names_exist() -> None:
    import cloudpilot

    for name in cloudpilot.__all__:
        assert getattr(cloudpilot, name) is not None
    with pytest.raises(AttributeError):
        cloudpilot.nothing  # noqa: B018


def test_a_fork_of_this_process_does_not_keep_sandboxes(state: object) -> None:
    code = (
        "import os, time\nfrom cloudpilot import Sandbox\nsandbox = Sandbox.create()\n"
        "if os.fork() == 0:\n    os.close(1); time.sleep(30); os._exit(0)\nos._exit(0)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20)
    eventually(lambda: not sandboxes_left(state))  # type: ignore[arg-type]
