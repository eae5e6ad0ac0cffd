"""Parts of a sandbox break, or the host runs short: the sandbox ends with a reason at the caller, or goes on; others notice nothing."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from harness import REPOSITORY, Pilot, eventually, process_lives, sandboxes_left

from cloudpilot import Sandbox, SandboxException

Start = Callable[..., "subprocess.Popen[bytes]"]

# What a caller waits for at most. The aim is a second; a busy machine must not decide.
PATIENCE = 60.0


def kernel_of(pilot: Pilot, name: str) -> int:
    """The kernel process of a sandbox, as the host numbers it."""
    found = [entry for entry in json.loads(pilot("ps", "--json").stdout) if name in (entry["id"], entry["name"])]
    assert len(found) == 1
    return int(found[0]["kernel_pid"])


def stubs_of(kernel: int) -> list[int]:
    """Its stubs, the oldest first: the first is the one that others are made from."""
    children = Path(f"/proc/{kernel}/task").glob("*/children")
    return sorted({int(pid) for file in children for pid in file.read_text().split()})


@pytest.fixture
def bystander(pilot: Pilot) -> Iterator[None]:
    """Another sandbox, which must be as before afterwards."""
    assert pilot.run("--detach", "--name", "bystander", "sleep", "1000").returncode == 0
    yield
    assert pilot("exec", "bystander", "echo", "fine").stdout == b"fine\n"
    assert pilot("kill", "bystander").returncode == 0


@pytest.fixture
def victim(start: Start, bystander: None) -> subprocess.Popen[bytes]:
    """A sandbox called `victim` in which two programs run."""
    process = start("run", "--name", "victim", "--", "sh", "-c", "sleep 1000 & echo ready; sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def reason(process: subprocess.Popen[bytes]) -> bytes:
    """What the caller was told, with status 125."""
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 125, said
    assert said.startswith(b"error: ")
    assert b"hint: " in said
    return bytes(said)


@pytest.mark.parametrize("which", [0, 1, -1])
@pytest.mark.parametrize(("number", "said"), [(signal.SIGKILL, b"was killed by somebody"), (signal.SIGSTOP, b"was stopped by somebody")])
def test_a_stub_that_somebody_kills_or_stops(
    pilot: Pilot, victim: subprocess.Popen[bytes], which: int, number: int, said: bytes, state: Path
) -> None:
    kernel = kernel_of(pilot, "victim")
    begin = time.monotonic()
    os.kill(stubs_of(kernel)[which], number)
    assert said in reason(victim)
    print(f"{time.monotonic() - begin:.3f} s")
    eventually(lambda: not process_lives(kernel))
    eventually(lambda: len(sandboxes_left(state)) == 1)


def test_a_sandbox_whose_processes_are_all_stopped_goes_on_when_they_are(pilot: Pilot, victim: subprocess.Popen[bytes]) -> None:
    kernel = kernel_of(pilot, "victim")
    stubs = stubs_of(kernel)
    for pid in (kernel, *stubs):
        os.kill(pid, signal.SIGSTOP)
    time.sleep(0.6)
    for pid in (*stubs, kernel):
        os.kill(pid, signal.SIGCONT)
    assert pilot("exec", "victim", "echo", "fine").stdout == b"fine\n"
    assert victim.poll() is None
    assert pilot("kill", "victim").returncode == 0


DEBUGGER = """
import ctypes, os, sys
seize, interrupt = 0x4206, 0x4207
stub = int(sys.argv[1])
if ctypes.CDLL(None).ptrace(seize, stub, 0, 0) != 0: sys.exit("may not trace")
ctypes.CDLL(None).ptrace(interrupt, stub, 0, 0)
print("holds", flush=True)
while os.WIFSTOPPED(os.waitpid(stub, 0x40000000)[1]): pass
"""


def test_a_stub_that_a_debugger_holds_can_be_ended(pilot: Pilot, victim: subprocess.Popen[bytes]) -> None:
    stub = stubs_of(kernel_of(pilot, "victim"))[-1]
    with subprocess.Popen([sys.executable, "-c", DEBUGGER, str(stub)], stdout=subprocess.PIPE) as debugger:
        assert debugger.stdout is not None
        if debugger.stdout.readline() != b"holds\n":
            pytest.skip("this user may not trace processes of the sandbox")
        assert pilot("exec", "victim", "echo", "fine").stdout == b"fine\n"
        assert pilot("kill", "victim").returncode == 0
        assert debugger.wait(timeout=PATIENCE) == 0
    eventually(lambda: not process_lives(stub))
    eventually(lambda: victim.poll() == 125)


def test_the_sdk_raises_with_the_reason(pilot: Pilot, bystander: None) -> None:
    with Sandbox.create() as sandbox:
        handle = sandbox.commands.run("sleep 1000", background=True)
        os.kill(stubs_of(kernel_of(pilot, sandbox.sandbox_id))[-1], signal.SIGKILL)
        begin = time.monotonic()
        with pytest.raises(SandboxException, match="was killed by somebody on the host"):
            handle.wait()
        with pytest.raises(SandboxException, match="was killed by somebody on the host"):
            sandbox.commands.run("true")
        assert time.monotonic() - begin < PATIENCE


BROKEN = REPOSITORY / "target/x86_64-unknown-linux-gnu/debug/examples/failing_kernel"


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("panic", b"crashed: panicked at"),
        ("overflow", b"crashed by signal 11"),
        ("fault", b"memory fault at"),
        ("abort", b"memory fault"),
        ("memory", b"memory allocation of 70368744177664 bytes failed"),
        ("call", b"its jail forbids"),
    ],
)
def test_a_thread_of_the_kernel_breaks(pilot: Pilot, bystander: None, state: Path, way: str, said: bytes) -> None:
    """By a build of the binary, made by `cargo test`, whose kernel threads break as the program's last argument says."""
    if not BROKEN.is_file():
        pytest.skip("`cargo test` has not built the example `failing_kernel`")
    result = pilot.run("--", "sh", "-c", "exit 3", way, env={**os.environ, "CLOUDPILOT_SANDBOX_BINARY": str(BROKEN)})
    assert result.returncode == 125, result
    assert said in result.stderr
    assert b"hint: " in result.stderr
    eventually(lambda: len(sandboxes_left(state)) == 1)


def test_a_control_group_that_is_full(pilot: Pilot, start: Start, bystander: None) -> None:
    """The host has less memory than the sandbox was promised: its out-of-memory killer ends a part of it."""
    process = start(
        "run", "--name", "victim", "--memory", "512m", "--", "sh", "-c", "echo ready; read line; exec tail /dev/zero", stdin=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == b"ready\n", process.stderr and process.stderr.read()
    found = next(entry for entry in json.loads(pilot("ps", "--json").stdout) if entry["name"] == "victim")
    limits = [
        file
        for group in Path("/sys/fs/cgroup").glob(f"**/cloudpilot-{found['id']}")
        for file in (group / "memory.max", group / "memory.limit_in_bytes")
        if file.exists()
    ]
    if not limits:
        process.kill()
        pytest.skip("this host gives no control groups that we may write")
    for limit in limits:
        limit.write_text(str(48 << 20))
    process.stdin.write(b"go\n")
    process.stdin.close()
    process.stdin = None
    said = reason(process)
    assert b"memory" in said


def test_the_hosts_limits_stand_behind_ours(pilot: Pilot) -> None:
    """Private memory and processes that our kernel does not know of are bounded without control groups, too; stubs inherit that."""
    assert pilot.run("--detach", "--name", "box", "--memory", "64m", "--pids", "50", "sleep", "1000").returncode == 0
    kernel = kernel_of(pilot, "box")
    for pid in (kernel, *stubs_of(kernel)):
        lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
        limits = {line[:26].strip(): line[26:].split()[:2] for line in lines}
        assert int(limits["Max data size"][1]) < 400 << 20
        assert int(limits["Max processes"][1]) < 1000
        assert limits["Max core file size"][:2] == ["0", "0"]
    assert pilot("kill", "box").returncode == 0


def test_few_descriptors(pilot: Pilot, tmp_path: Path, bystander: None) -> None:
    """Whoever starts the sandbox may open few files: the guest gets an error, our own work goes on."""
    tmp_path.chmod(0o777)
    code = """
import os
held = []
try:
    while True: held.append(os.open(f"/data/{len(held)}", os.O_CREAT | os.O_RDWR))
except OSError as error: print(error.errno in (23, 24), 100 < len(held) < 1024)
print(os.stat("/data").st_nlink > 0)
for descriptor in held: os.close(descriptor)
print(open("/data/again", "w").write("x"))
"""
    few = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))  # noqa: E731
    result = pilot.run("-v", f"{tmp_path}:/data", "--", "python3", "-c", code, preexec_fn=few)
    assert (result.returncode, result.stdout.split()) == (0, [b"True", b"True", b"True", b"1"]), result


def test_a_full_disk_behind_a_volume(pilot: Pilot, tmp_path: Path, bystander: None) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system that is full")
    disk = tmp_path / "disk"
    disk.mkdir()
    tmp_path.chmod(0o755)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k,mode=777", "none", disk], check=True, timeout=10)
    code = """
import errno, mmap, os
fd = os.open("/data/file", os.O_CREAT | os.O_RDWR)
try:
    while True: os.write(fd, bytes(4096))
except OSError as error: print(errno.errorcode[error.errno])
try: os.posix_fallocate(fd, 0, 1 << 20); print("allocated")
except OSError as error: print(errno.errorcode[error.errno])
os.ftruncate(fd, 1 << 20)
if os.fork() == 0:
    # No page is left for what is written here: a signal, as on Linux.
    mapped = mmap.mmap(fd, 1 << 20)
    for at in range(0, 1 << 20, 4096): mapped[at] = 1
    os._exit(0)
print(os.waitstatus_to_exitcode(os.wait()[1]))
os.unlink("/data/file"); os.close(fd)
print(open("/data/again", "w").write("x"))
"""
    try:
        result = pilot.run("-v", f"{disk}:/data", "--", "python3", "-c", code)
        assert (result.returncode, result.stdout.split()) == (0, [b"ENOSPC", b"ENOSPC", b"-7", b"1"]), result
    finally:
        subprocess.run(["umount", "-l", disk], check=True, timeout=10)
