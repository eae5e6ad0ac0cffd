"""Attacks that broke Linux or other walls, each with the reason why it fails here."""

from __future__ import annotations

import hashlib
import os
import pty
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import PILOT, Pilot, Terminal

from cloudpilot.engine import paths

Start = Callable[..., "subprocess.Popen[bytes]"]


def attack(pilot: Pilot, attacks: Path, name: str, *arguments: object, options: tuple[object, ...] = (), timeout: float = 50) -> str:
    """Runs a program that prints `ok` or `FAIL` for each case and `done` at the end; none may fail."""
    shown = ("--volume", f"{attacks}:/attacks:ro")
    result = pilot.run("--timeout", int(timeout - 5), *shown, *options, "--", f"/attacks/{name}", *arguments, timeout=timeout)
    said = result.stdout.decode()
    assert result.returncode == 0, (result.returncode, said[-1500:], result.stderr.decode())
    assert "FAIL" not in said, [line for line in said.splitlines() if "FAIL" in line]
    assert said.splitlines()[-1].startswith("done"), said[-500:]
    return said


class ShellTerminal(Terminal):
    """A shell of the host behind a terminal."""

    def __init__(self, script: str) -> None:
        self.child, self.master = pty.fork()
        if self.child == 0:
            os.execv("/bin/bash", ["bash", "-c", script])
        self.seen = b""


def digest(path: str | Path) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


@pytest.mark.parametrize("where", ["lower layer", "read-only volume", "writable volume", "tmpfs"])
def test_dirty_cow_and_dirty_pipe(pilot: Pilot, attacks: Path, tmp_path: Path, where: str) -> None:
    """CVE-2016-5195 and CVE-2022-0847.

    A page of a file that may only be read is written to, by a race between `madvise` and a write through
    `/proc/self/mem`, or by a pipe that takes a page for its own.

    Here a private page is copied under the address space's lock before anything is written to it, whoever writes; and a pipe never holds a file's
    page: `splice` copies into buffers of the pipe's own, so that there is no flag by which a later write could be merged into the file.
    """
    tmp_path.chmod(0o755)
    file = tmp_path / "file"
    file.write_text("unchanged\n")
    file.chmod(0o644)
    options: tuple[object, ...] = ()
    inside = {"lower layer": "/etc/hostname", "tmpfs": "/etc/hosts"}.get(where, "/data/file")
    if where == "lower layer":
        inside = "/usr/bin/env"
    elif inside.startswith("/data"):
        options = ("--volume", f"{tmp_path}:/data{':ro' if where.startswith('read') else ''}")
    before = digest("/usr/bin/env")
    attack(pilot, attacks, "copies", inside, options=options)
    assert file.read_text() == "unchanged\n"
    assert digest("/usr/bin/env") == before


def test_the_executable_of_who_enters(pilot: Pilot, attacks: Path, start: Start) -> None:
    """CVE-2019-5736: a container made `runc exec` execute itself and wrote to it through `/proc/PID/exe`.

    Here nothing of the host is ever executed inside: what enters is a request to our kernel, which makes the process itself, so that
    `/proc/PID/exe` leads to files of the sandbox. `/proc/self/exe` of the process that asks is looked up by nobody.
    """
    binary = paths.binary()
    before = digest(binary), digest(os.path.realpath("/usr/bin/env"))
    assert pilot.run("--detach", "--name", "box", "-v", f"{attacks}:/attacks:ro", "sleep", "1000").returncode == 0
    attacker = start("exec", "box", "/attacks/executable", "4")
    assert attacker.stdout is not None
    assert attacker.stdout.readline() == b"ready\n"
    end = time.monotonic() + 4
    while time.monotonic() < end:
        pilot("exec", "box", "/proc/self/exe", "--version")
        pilot("exec", "box", "env")
    rest = attacker.stdout.read()
    assert b"done" in rest
    assert b"FAIL" not in rest
    assert pilot("kill", "box").returncode == 0
    assert (digest(binary), digest(os.path.realpath("/usr/bin/env"))) == before


@pytest.mark.parametrize("number", [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 15, 20])
def test_a_leaked_descriptor_as_working_directory(pilot: Pilot, tmp_path: Path, number: int) -> None:
    """CVE-2024-21626: a descriptor of the host's tree was open in the starting process, and `/proc/self/fd/7` as working directory led there.

    Here the working directory is looked up by our kernel in the sandbox's tree, where `/proc/self/fd` shows our kernel's table of files; host
    descriptors are not in it. The kernel process closes what it inherits, and its own handles are detached mounts without a parent directory.
    """
    secret = tmp_path / "secret"
    secret.write_text("secret")
    script = f"pwd; cat {secret} ../../../../../..{secret} /proc/self/cwd/../../../../..{secret} 2>/dev/null; true"
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        os.set_inheritable(directory, True)
        result = pilot.run("--workdir", f"/proc/self/fd/{number}", "--", "sh", "-c", script, pass_fds=[directory], cwd=tmp_path)
    finally:
        os.close(directory)
    assert b"secret" not in result.stdout.replace(str(secret).encode(), b"")
    assert result.returncode in (0, 125, 127), result
    if result.returncode:
        assert b"working directory" in result.stderr


def test_entering_with_a_descriptor_as_working_directory(pilot: Pilot, attacks: Path, tmp_path: Path) -> None:
    """The same by `exec`, and through a link in the image that leads to the descriptor."""
    root = tmp_path / "root"
    (root / "attacks").mkdir(parents=True)
    shutil.copy2(attacks / "surface", root / "attacks" / "surface")
    for number in range(3, 12):
        (root / f"link{number}").symlink_to(f"/proc/self/fd/{number}/")
    for path in (tmp_path, root, root / "attacks"):
        path.chmod(0o755)
    assert pilot.run("--detach", "--name", "box", "-v", f"{root}:/image:ro", "sleep", "1000").returncode == 0
    for number in range(3, 12):
        for place in (f"/proc/self/fd/{number}", f"/image/link{number}", f"/proc/1/fd/{number}", f"/proc/thread-self/fd/{number}"):
            result = pilot("exec", "--workdir", place, "box", "--", "ls", "-la", "..")
            assert result.returncode in (0, 125, 127, 2), result
            assert str(tmp_path.name).encode() not in result.stdout
    assert pilot("kill", "box").returncode == 0


def test_tracing_and_proc(pilot: Pilot, attacks: Path) -> None:
    """Ways of a user inside to other users' processes.

    It reaches for processes of root by `ptrace`, `/proc/PID/mem` and its neighbours; keeps a tracer or a descriptor of its memory
    across the start of a set-user-ID program (CVE-2012-0056 and relatives).

    Every such way asks one function for permission, with the credentials of that moment; a program that is traced without the right to trace all
    gets no more rights; `/proc/PID/mem` belongs to the address space that was there when it was opened. All of this keeps users *inside* apart:
    the host's processes have no numbers here at all.
    """
    attack(pilot, attacks, "tracing_others")


def test_arguments_that_change_while_they_are_read(pilot: Pilot, attacks: Path) -> None:
    """Another thread changes paths, vectors, control messages, filters and structures while the kernel reads them.

    Each word of guest memory is copied into the kernel's own before it is looked at, and what was looked at is what is used.
    """
    attack(pilot, attacks, "changing", 150)


def test_things_within_things(pilot: Pilot, attacks: Path) -> None:
    """Descriptors of sockets in sockets' queues, rings of them, epolls of epolls, deep directories, mounts, links, scripts, processes.

    What travels is counted and found again when nobody can receive it; chains are walked and dropped in loops, not by recursion; the others have
    Linux's own limits.
    """
    assert pilot.run("--detach", "--name", "box", "-v", f"{attacks}:/attacks:ro", "--memory", "1g", "sleep", "1000").returncode == 0
    result = pilot("exec", "box", "/attacks/nesting", timeout=50)
    assert (result.returncode, result.stdout.splitlines()[-1]) == (0, b"done"), result
    assert b"FAIL" not in result.stdout
    assert pilot("exec", "box", "echo", "fine").stdout == b"fine\n"
    assert pilot("kill", "box").returncode == 0


def test_forged_frames_and_strange_instructions(pilot: Pilot, attacks: Path) -> None:
    """What makes a processor or a kernel stumble between privilege levels.

    Signal frames with forged segments, flags, instruction pointers and floating-point state; the same in the memory shared with the kernel;
    privileged and odd instructions, far jumps, 32-bit calls, non-canonical addresses, segment bases under the patched path.

    Guest code runs in an ordinary process of the host, so that the processor and the host's `rt_sigreturn` refuse what they refuse to anybody; our
    kernel takes from a frame only general registers and checked floating-point state, and copies that once before it looks at its sizes.
    """
    attack(pilot, attacks, "frames", timeout=90)


def test_interfaces_that_are_not_there(pilot: Pilot, attacks: Path, tmp_path: Path) -> None:
    """Interfaces of Linux that were the way out of other walls.

    `bpf`, `userfaultfd`, `perf`, keys, modules, exotic socket families, settings that make the host run programs, devices, chroots, namespaces,
    and the remounting of a read-only volume.

    They are not implemented, or are the sandbox's own; a volume that is read-only is a read-only mount on the host, below the guest's flags.
    """
    readable = tmp_path / "readable"
    readable.write_text("unchanged")
    readable.chmod(0o666)
    tmp_path.chmod(0o777)
    settings = [path for path in map(Path, ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe")) if path.exists()]
    before = [path.read_text() for path in settings]
    attack(pilot, attacks, "surface", options=("--volume", f"{tmp_path}:/data:ro"))
    assert [path.read_text() for path in settings] == before
    assert readable.read_text() == "unchanged"
    assert os.listdir(tmp_path) == ["readable"]


def test_the_vdso_is_not_changed(pilot: Pilot, attacks: Path) -> None:
    """The vDSO is one page for all processes of the host: whoever could write to it would run code in all of them.

    In a stub it is a mapping that the guest's address space does not know: `mprotect`, `/proc/self/mem` and `ptrace` find nothing there, and the
    host makes private copies besides.
    """
    attack(pilot, attacks, "vdso")


def test_a_first_program_sees_nothing_of_the_kernel_process(pilot: Pilot, attacks: Path) -> None:
    """The first stub is a copy of the kernel process.

    Its registers, thread pointer and signal frame would tell where that has its code and stack;
    they are cleared before anybody runs in it.
    """
    assert pilot.output("--volume", f"{attacks}:/attacks:ro", "--", "/attacks/origin_bare") == "nothing\n"


def test_typing_on_the_starters_terminal(pilot: Pilot) -> None:
    """`TIOCSTI` (CVE-2013-6409 and many others): a program pushes characters into the terminal that it shares with its starter's shell.

    Our kernel hands on no request that changes a terminal of the host, and the filter of host calls would end it if it did.
    """
    code = (
        "import fcntl,termios\n"
        "for request in (0x5412, 0x5413 + 1, 0x541C, 0x4B3A, 0x5423, 0x540E):\n"
        "    for fd in (0, 1, 2):\n"
        "        for byte in (101, 118, 105, 108, 10):\n"
        "            try: fcntl.ioctl(fd, request, bytes([byte]))\n"
        "            except OSError: pass\n"
        'print(str().join(("tr", "ied")))\n'
    )
    script = f"{shlex.quote(str(PILOT))} run -- python3 -c '{code}'; echo after; read -t 1 line; echo \"[$line]\""
    terminal = ShellTerminal(script)
    terminal.expect(b"tried")
    terminal.expect(b"after")
    terminal.expect(b"[]")
    terminal.status()


def test_descriptors_of_the_kernel_process(pilot: Pilot, attacks: Path, tmp_path: Path) -> None:
    """A stub shares the kernel process's descriptors, and a guest that jumps to the stub's system call instruction may map them.

    It reaches the sandbox's own memory and slots that way, with which it can break its own sandbox only: nothing of the kernel process's own state
    lies in a file. Files of the host are open for what the sandbox may do with them anyway.
    """
    (tmp_path / "file").write_text("unchanged" * 1000)
    (tmp_path / "file").chmod(0o644)
    tmp_path.chmod(0o755)
    shown = ("-v", f"{attacks}:/attacks:ro", "-v", f"{tmp_path}:/data:ro")
    script = "exec 5</data/file 6</usr/bin/env; exec /attacks/stub_maps"
    result = pilot.run("--timeout", "40", *shown, "--", "sh", "-c", script, timeout=55)
    assert b"ok by it the sandbox's own memory can be mapped" in result.stdout, result
    assert result.returncode in (0, 124, 125, 137, 139, 135), result
    assert (tmp_path / "file").read_text() == "unchanged" * 1000
    assert pilot.run("/usr/bin/env", "true").returncode == 0


def test_descriptors_over_a_socket_of_the_starter(pilot: Pilot, tmp_path: Path, start: Start) -> None:
    """A program whose standard input is a unix socket sends its starter descriptors, and is sent some.

    Our kernel reads and writes that socket as a stream of bytes: it never asks the host for the descriptors that come along, and has none to send.
    """
    secret = tmp_path / "secret"
    secret.write_text("secret")
    code = (
        "import socket,os,array\n"
        "try:\n"
        "    s=socket.socket(fileno=os.dup(0))\n"
        "    print(s.recvmsg(10, 1000))\n"
        "    s.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [1]))])\n"
        "except OSError as error: print(error)\n"
        "print(os.read(0, 10))\n"
        "print(len(os.listdir('/proc/self/fd')))\n"
    )
    ours, theirs = socket.socketpair()
    with ours, theirs, secret.open() as file:
        socket.send_fds(ours, [b"with one"], [file.fileno()])
        process = start("run", "--", "python3", "-c", code, stdin=theirs.fileno())
        out, _ = process.communicate(timeout=30)
        assert process.returncode == 0, out
        assert b"with one" in out
        assert b"secret" not in out
        assert int(out.split()[-1]) <= 5
        ours.setblocking(False)
        with pytest.raises(BlockingIOError):
            socket.recv_fds(ours, 100, 10)
