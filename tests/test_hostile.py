"""Hostile programs: the host stays untouched, and the sandbox lives on or ends with a reason, and never hangs."""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Pilot, Result

Start = Callable[..., "subprocess.Popen[bytes]"]

REASONS = (b"crashed", b"forbids", b"ended")


def lived_or_ended_with_a_reason(result: Result, said: bytes) -> None:
    """The sandbox was there to the end, or told why not."""
    if result.returncode == 125:
        assert any(reason in result.stderr for reason in REASONS), result
    else:
        assert result.returncode == 0, result
        assert said in result.stdout


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A secret beside a volume, and links to it in the volume."""
    tmp_path.chmod(0o755)
    secret, volume = tmp_path / "secret", tmp_path / "volume"
    secret.write_text("secret")
    volume.mkdir()
    volume.chmod(0o777)
    (volume / "inside").write_text("inside")
    (volume / "directory").mkdir()
    (volume / "relative").symlink_to("../secret")
    (volume / "absolute").symlink_to(secret)
    (volume / "dangling").symlink_to("../created")
    (volume / "up").symlink_to("..")
    return secret


@pytest.mark.parametrize("user", ["0:0", "1000:1000"])
def test_no_way_leads_out_of_a_volume(pilot: Pilot, guests: Path, secret: Path, user: str) -> None:
    volume = secret.parent / "volume"
    result = pilot.run("--user", user, "-v", f"{guests}:/guests:ro", "-v", f"{volume}:/data", "--", "/guests/links", secret)
    assert (result.returncode, result.stdout) == (0, b"done\n"), result
    assert secret.read_text() == "secret"
    assert sorted(os.listdir(secret.parent)) == ["secret", "volume"]


def test_a_volume_swapped_while_it_is_used(pilot: Pilot, secret: Path, start: Start) -> None:
    """The guest exchanges a directory and a link as fast as it can, and opens through it."""
    volume = secret.parent / "volume"
    code = """
import os, threading, time
os.chdir("/data"); os.mkdir("a"); open("a/secret", "w").write("harmless"); os.symlink("..", "b")
stop = time.time() + 3; seen = set()
def swap():
    while time.time() < stop:
        os.rename("a", "c"); os.rename("b", "a"); os.rename("a", "b"); os.rename("c", "a")
thread = threading.Thread(target=swap); thread.start()
while time.time() < stop:
    for name in ("a/secret", "b/secret", "a/../secret"):
        try: seen.add(open(name).read())
        except OSError: pass
thread.join(); print(sorted(seen))
"""
    result = pilot.run("-v", f"{volume}:/data", "--", "/usr/bin/python3", "-c", code)
    assert result.returncode == 0, result
    assert b"'secret'" not in result.stdout


def test_a_directory_as_standard_input_leads_nowhere(pilot: Pilot, secret: Path) -> None:
    code = """
import os
for path in ("secret", "../secret", "."):
    try: print(path, os.open(path, os.O_RDONLY, dir_fd=3))
    except OSError as error: pass
for path in ("/proc/self/fd/3/secret", "/dev/fd/3/secret"):
    try: print(path, open(path).read())
    except OSError: pass
try: os.fchdir(3); print(os.getcwd(), os.listdir("."))
except OSError: pass
print("done")
"""
    descriptor = os.open(secret.parent, os.O_RDONLY)
    try:
        shell = 'exec 3<&0 0</dev/null; exec /usr/bin/python3 -c "$0"'
        result = pilot.directly("--", "sh", "-c", shell, code, stdin=descriptor)
    finally:
        os.close(descriptor)
    assert result.returncode in (0, 125, 126), result
    assert b"secret" not in result.stdout


def test_standard_input_is_not_opened_anew_for_writing(pilot: Pilot, secret: Path) -> None:
    code = """
import os
for path in ("/proc/self/fd/0", "/dev/stdin", "/dev/fd/0"):
    for flags in (os.O_WRONLY, os.O_RDWR, os.O_WRONLY | os.O_TRUNC):
        try: os.write(os.open(path, flags), b"broken")
        except OSError: pass
for attempt in (lambda: os.ftruncate(0, 0), lambda: os.write(0, b"broken"), lambda: os.fchmod(0, 0o777), lambda: os.fchown(0, 1, 1),
                lambda: os.truncate("/proc/self/fd/0", 0), lambda: os.utime(0, (0, 0))):
    try: attempt()
    except OSError: pass
"""
    before = secret.stat()
    with secret.open("rb") as file:
        result = pilot.run("--", "/usr/bin/python3", "-c", code, stdin=file.fileno())
    assert result.returncode == 0, result
    assert secret.read_text() == "secret"
    after = secret.stat()
    assert (after.st_mode, after.st_uid, after.st_mtime) == (before.st_mode, before.st_uid, before.st_mtime)


def test_descriptors_of_the_starter_are_not_handed_in(pilot: Pilot, secret: Path) -> None:
    with secret.open("r+b") as file, socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        result = pilot.run("--", "ls", "/proc/self/fd", pass_fds=[file.fileno(), listening.fileno()])
    assert set(result.stdout.split()) <= {b"0", b"1", b"2", b"3"}, result


def test_the_hosts_kernel_and_processes_are_out_of_reach(pilot: Pilot) -> None:
    host = os.getpid()
    code = f"""
import os, ctypes
libc = ctypes.CDLL(None, use_errno=True)
for path in ("/proc/kcore", "/proc/kmem", "/dev/mem", "/dev/kmem", "/dev/port", "/proc/{host}/mem", "/proc/{host}/environ", "/dev/kvm",
             "/dev/sda", "/dev/vda", "/sys/kernel/debug", "/proc/sysrq-trigger", "/sys/power/state", "/proc/kallsyms"):
    try:
        fd = os.open(path, os.O_RDONLY)
        data = os.read(fd, 10)
        print("read", path, data)
    except OSError: pass
    try: print("wrote", path, os.write(os.open(path, os.O_WRONLY), b"b"))
    except OSError: pass
pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
print(len(pids) < 10 and max(pids) < 100 and {host} not in pids)
try: os.kill({host}, 9)
except OSError as error: print(error.strerror)
for number in (165, 166, 169, 175, 246, 313, 321, 425, 101, 172, 173):  # mount … reboot, init_module, kexec, bpf, io_uring, ptrace, iopl
    libc.syscall(number, 0, 0, 0, 0, 0, 0)
print("done")
"""
    out = pilot.output("--", "/usr/bin/python3", "-c", code)
    assert out == "True\nNo such process\ndone\n"


def test_another_users_memory_is_not_read(pilot: Pilot) -> None:
    code = """
import os, time
if os.fork() == 0:
    time.sleep(30); os._exit(0)
child = [int(name) for name in os.listdir("/proc") if name.isdigit()][-1]
os.setgid(1000); os.setuid(1000)
for path in (f"/proc/{child}/mem", f"/proc/{child}/environ", "/proc/1/mem", f"/proc/{child}/maps"):
    try: open(path, "rb").read(1); print("read", path)
    except OSError as error: pass
try: os.kill(child, 9); print("killed")
except PermissionError: print("refused")
"""
    assert pilot.output("--timeout", "200", "--", "/usr/bin/python3", "-c", code) == "refused\n"


def test_a_fork_bomb_stays_inside(pilot: Pilot, guests: Path) -> None:
    begin = time.monotonic()
    result = pilot.run("--pids", "100", "--timeout", "3", "-v", f"{guests}:/guests:ro", "--", "/guests/bomb")
    assert result.returncode == 124, result
    assert time.monotonic() - begin < 60
    assert pilot.run("/bin/true").returncode == 0


def test_processes_are_limited(pilot: Pilot) -> None:
    code = """
import os
count = 0
try:
    while True:
        if os.fork() == 0:
            import time; time.sleep(30); os._exit(0)
        count += 1
except BlockingIOError: print(10 < count < 40, flush=True)
os._exit(0)
"""
    assert pilot.output("--pids", "40", "--timeout", "25", "--", "/usr/bin/python3", "-c", code) == "True\n"


def test_a_memory_bomb_is_killed_and_that_is_said(pilot: Pilot, guests: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    result = pilot.run("--memory", "64m", "-v", f"{guests}:/guests:ro", "--", "/guests/bomb", "memory")
    assert result.returncode == 137, result
    assert b"memory" in result.stderr.lower()
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss < max(before, 400 << 10)


def test_only_the_eater_is_killed(pilot: Pilot, guests: Path) -> None:
    script = "sleep 100 & /guests/bomb memory; echo status $?; kill $! && echo the other lives"
    result = pilot.run("--memory", "96m", "-v", f"{guests}:/guests:ro", "--", "sh", "-c", script)
    assert result.stdout == b"status 137\nthe other lives\n", result


@pytest.mark.parametrize("place", ["/tmp", "/dev/shm", "/usr/share"])
def test_a_disk_fill_stays_inside(pilot: Pilot, place: str) -> None:
    script = f"dd if=/dev/zero of={place}/fill bs=1M; echo $?; rm {place}/fill; echo x > {place}/small && echo room again"
    result = pilot.run("--memory", "128m", "--timeout", "30", "--", "sh", "-c", script)
    assert (result.returncode, result.stdout) == (0, b"1\nroom again\n"), result
    assert b"No space left" in result.stderr


def test_open_files_are_limited(pilot: Pilot) -> None:
    code = """
import os, resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
try:
    while True: os.open("/dev/null", 0)
except OSError as error: print(error.strerror)
try: resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 30, 1 << 30))
except (OSError, ValueError): print("not above the limit")
"""
    assert pilot.output("--", "/usr/bin/python3", "-c", code) == "Too many open files\nnot above the limit\n"


def test_processor_time_is_limited(pilot: Pilot) -> None:
    if os.geteuid() != 0:
        pytest.skip("control groups need rights that this user has not")
    before = os.times()
    result = pilot.run("--cpus", "0.2", "--timeout", "2", "--", "sh", "-c", "while :; do :; done")
    after = os.times()
    if b"control group" in result.stderr:
        pytest.skip(f"this host has no control groups for that: {result.stderr.decode()}")
    used = after.children_user + after.children_system - before.children_user - before.children_system
    assert result.returncode == 124, result
    assert used < 1.2


@pytest.fixture(params=[False, pytest.param(True, marks=[pytest.mark.soak, pytest.mark.timeout(540)])], ids=["short", "soak"])
def duration(request: pytest.FixtureRequest) -> int:
    """Seconds: a few, or with `make soak` a minute."""
    return 60 if request.param else 4


@pytest.mark.parametrize("user", ["0:0", "1000:1000"])
def test_random_system_calls(pilot: Pilot, guests: Path, duration: int, user: str) -> None:
    seed = time.time_ns() & 0xFFFFFFFF
    print(f"seed {seed}")
    result = pilot.run(
        "--user", user, "--memory", "512m", "--pids", "200", "--timeout", str(duration + 25),
        "-v", f"{guests}:/guests:ro", "--", "/guests/fuzz", duration, seed, timeout=duration + 50,
    )  # fmt: skip
    lived_or_ended_with_a_reason(result, b"children")


def test_overwriting_what_the_kernel_shares_with_threads(pilot: Pilot, guests: Path, duration: int) -> None:
    result = pilot.run(
        "--memory", "512m", "--timeout", str(duration + 25), "-v", f"{guests}:/guests:ro", "--", "/guests/context", duration,
        timeout=duration + 50,
    )  # fmt: skip
    # Not 124: what a guest does to its own threads must not make them unkillable.
    assert result.returncode in (0, 125, 137, 139, 159), result


def test_the_stubs_own_system_calls_do_not_reach_the_host(pilot: Pilot, guests: Path, secret: Path) -> None:
    secret.chmod(0o666)
    with socket.socket(socket.AF_UNIX):
        result = pilot.run("--timeout", "40", "-v", f"{guests}:/guests:ro", "--", "/guests/stub", secret, timeout=55)
    assert result.returncode in (0, 124, 125, 137, 159), result
    assert secret.read_text() == "secret"
    assert os.path.exists("/proc/self")


def test_output_may_hold_anything(pilot: Pilot) -> None:
    result = pilot.run("--detach", "--name", "box", "--", "sleep", "1000\x1b[31m\n")
    if result.returncode == 0:
        shown = pilot("ps").stdout
        assert b"\x1b" not in shown
        assert len(json.loads(pilot("ps", "--json").stdout)) <= 1
        pilot("kill", "--all")


def test_a_client_that_does_not_read_is_hung_up_on(pilot: Pilot, state: Path) -> None:
    assert pilot.run("--detach", "--name", "box", "sleep", "1000").returncode == 0
    path = next((state / "cloudpilot").glob("*/control.sock"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(5)
        client.connect(str(path))
        try:
            for number in range(100_000):
                client.send(json.dumps({"id": number, "method": "stats"}).encode())
        except OSError:
            pass
    assert pilot("exec", "box", "echo", "fine").stdout == b"fine\n"
    assert pilot("kill", "box").returncode == 0


@pytest.mark.parametrize(
    "message",
    [b"", b"x", b"{}", b"[]", b"null", b'{"id": 1, "method": "exec"}', b'{"id": 1, "method": "exec", "params": {"args": []}}',
     b'{"id":1,"method":"signal","params":{"pid":"x"}}', b"[" * 100_000, b'{"id":1,"method":"' + b"a" * 100_000 + b'"}', os.urandom(5000)],
)  # fmt: skip
def test_nonsense_on_the_control_socket(pilot: Pilot, state: Path, message: bytes) -> None:
    assert pilot.run("--detach", "--name", "box", "sleep", "1000").returncode == 0
    path = next((state / "cloudpilot").glob("*/control.sock"))
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
        client.settimeout(5)
        client.connect(str(path))
        client.send(message)
        if message:
            assert "error" in json.loads(client.recv(200_000))
    assert pilot("exec", "box", "echo", "fine").stdout == b"fine\n"
    assert pilot("kill", "box").returncode == 0
