"""Bad input: each is refused in one line that says what to do, with a status from 125 to 127, and nothing is left behind."""

from __future__ import annotations

import ctypes
import os
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
from harness import Pilot, Result, sandboxes_left


def refused(result: Result, status: int) -> str:
    """The message of a refusal."""
    text = result.stderr.decode()
    assert result.returncode == status, (result.returncode, text)
    lines = text.splitlines()
    assert lines, "nothing was said"
    assert lines[0].startswith("error: "), text
    assert len(lines) <= 2, text
    assert len(lines) == 1 or lines[1].startswith("hint: "), text
    assert result.stdout == b""
    return text


@pytest.mark.parametrize("program", ["no-such-program", "/no/such/program", "./no-such-program"])
def test_a_missing_program(pilot: Pilot, state: Path, program: str) -> None:
    assert program in refused(pilot.run(program), 127)
    assert not sandboxes_left(state)


@pytest.mark.parametrize("program", ["/etc/hostname", "/usr/bin", "/etc/passwd"])
def test_a_program_that_is_none(pilot: Pilot, state: Path, program: str) -> None:
    refused(pilot.run(program), 126)
    assert not sandboxes_left(state)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--bogus", "ls"], "--bogus"),
        (["--memory", "1k", "ls"], "memory limit is too small"),
        (["--memory", "much", "ls"], "`much` is not a size"),
        (["--cpus", "0", "ls"], "CPU limit"),
        (["--cpus", "nan", "ls"], "CPU limit"),
        (["--cpus", "x", "ls"], "CPU limit"),
        (["--pids", "0", "ls"], "--pids 0"),
        (["--pids", "-3", "ls"], "--pids -3"),
        (["--timeout", "soon", "ls"], "`soon` is not a duration"),
        (["--timeout", "-1", "ls"], "`-1` is not a duration"),
        (["--network", "bridge", "ls"], "bridge"),
        (["--user", "root", "ls"], "`root` is not a user"),
        (["--user", "-1", "ls"], "user"),
        (["--env", "=x", "ls"], "`=x` is not a variable"),
        (["--volume", "/tmp", "ls"], "`/tmp` is not a volume"),
        (["--volume", "/tmp:here", "ls"], "here"),
        (["--volume", "/tmp:/t:rx", "ls"], "not a volume"),
        (["--volume", "/no/such/place:/t", "ls"], "/no/such/place"),
        (["--hostname", "a b", "ls"], "host name"),
        (["--rootfs", "/no/such/root", "ls"], "/no/such/root"),
        (["--rootfs", "/etc/passwd", "ls"], "/etc/passwd"),
        (["--tty", "--detach", "ls"], "exclude"),
        (["--workdir", "/no/such/place", "ls"], "/no/such/place"),
        ([], "no program"),
        (["--"], "no program"),
        (["--memory"], "--memory"),
    ],
)
def test_options(pilot: Pilot, state: Path, arguments: list[str], said: str) -> None:
    result = pilot.run(*arguments)
    assert result.returncode in (125, 127)
    assert said in refused(result, result.returncode)
    assert not sandboxes_left(state)


@pytest.mark.parametrize(
    "arguments",
    [
        ["exec", "nobody", "ls"],
        ["exec"],
        ["exec", "x"],
        ["kill", "nobody"],
        ["kill"],
        ["stats", "nobody"],
        ["fly"],
        ["--fly"],
        ["ps", "--fly"],
    ],
)
def test_other_commands(pilot: Pilot, arguments: list[str]) -> None:
    refused(pilot(*arguments), 125)


def test_a_state_directory_that_cannot_be_written(pilot: Pilot) -> None:
    result = pilot.run("/bin/true", env={**os.environ, "XDG_RUNTIME_DIR": "/proc/nowhere"})
    assert "XDG_RUNTIME_DIR" in refused(result, 125)


def test_a_full_disk_for_the_state_directory(pilot: Pilot, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system that is full")
    disk = tmp_path / "d"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k,mode=700,nr_inodes=2", "none", disk], check=True, timeout=10)
    try:
        result = pilot.run("/bin/true", env={**os.environ, "XDG_RUNTIME_DIR": str(disk)})
        assert "space" in refused(result, 125)
    finally:
        subprocess.run(["umount", disk], check=True, timeout=10)


def test_no_user_namespaces() -> None:
    """Without them and without rights there is no wall, and that is said."""
    if os.geteuid() != 0:
        pytest.skip("only root can take user namespaces away")
    import tempfile

    directory = Path(tempfile.mkdtemp(prefix="cpn-"))
    try:
        binary = directory / "cloudpilot-sandbox"
        shutil.copy2(Path(__file__).parent.parent / "src/cloudpilot/_bin/cloudpilot-sandbox", binary)
        os.chown(directory, 65534, 65534)
        (directory / "config").write_text('{"id": "x", "args": ["true"], "root": {"kind": "host"}, "state_dir": "%s/state/x"}' % directory)
        result = in_a_namespace_without_others([str(binary), "run", "--config-fd", "3"], directory / "config")
        text = refused(result, 125)
        assert "namespace" in text
        assert not (directory / "state").exists() or os.listdir(directory / "state") == []
    finally:
        shutil.rmtree(directory)


def in_a_namespace_without_others(command: list[str], config: Path) -> Result:
    """Runs a command as nobody, in a user namespace in which no other can be made. Its descriptor 3 reads `config`."""
    ready, born = os.pipe()
    said, say = os.pipe()
    mapped, go = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ctypes.CDLL(None).unshare(0x10000000)
            os.write(born, b".")
            os.read(mapped, 1)
            Path("/proc/sys/user/max_user_namespaces").write_text("0")
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            os.dup2(say, 2)
            os.dup2(os.open(config, os.O_RDONLY), 3)
            os.execv(command[0], command)
        finally:
            os._exit(99)
    os.close(say)
    os.read(ready, 1)
    for kind in ("uid", "gid"):
        Path(f"/proc/{child}/{kind}_map").write_text("0 0 70000\n")
    os.write(go, b".")
    with open(said, "rb") as file:
        text = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    for descriptor in (ready, born, mapped, go):
        os.close(descriptor)
    return subprocess.CompletedProcess(command, status, b"", text)


def elf(*, phnum: int = 1, vaddr: int = 0x400000, filesz: int = 0x1000, memsz: int = 0x1000, offset: int = 0, kind: int = 2) -> bytes:
    """An ELF file with one or more equal segments, in a page."""
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01" + bytes(9), kind, 62, 1, vaddr + 0xF00, 64, 0, 0, 64, 56, phnum, 0, 0, 0
    )
    segment = struct.pack("<IIQQQQQQ", 1, 7, offset, vaddr, vaddr, filesz, memsz, 0x1000)
    # exit(0), should it ever come to that
    code = bytes.fromhex("b83c00000031ff0f05")
    return (header + segment * min(phnum, 8)).ljust(0xF00, b"\0") + code.ljust(0x100, b"\0")


@pytest.mark.parametrize(
    ("name", "contents"),
    [
        ("empty", b""),
        ("only the magic", b"\x7fELF"),
        ("half a header", elf()[:40]),
        ("no segments", elf(phnum=0)),
        ("segments behind the end", elf(offset=1 << 40)),
        ("more segments than there are", elf(phnum=60000)[:200]),
        ("a huge segment", elf(memsz=1 << 62)),
        ("a segment in the kernel's half", elf(vaddr=0xFFFF800000000000)),
        ("a segment that wraps around", elf(vaddr=(1 << 64) - 0x1000, memsz=0x3000)),
        ("more in the file than in memory", elf(filesz=0x1000, memsz=0x10)),
        ("another machine", elf()[:18] + b"\xb7\x00" + elf()[20:]),
        ("not a program", elf(kind=1)),
        ("a script without an interpreter", b"#!\n"),
        ("a script with a missing interpreter", b"#!/no/such/interpreter\n"),
    ],
)
def test_broken_programs(pilot: Pilot, state: Path, tmp_path: Path, name: str, contents: bytes) -> None:
    program = tmp_path / "program"
    program.write_bytes(contents)
    program.chmod(0o755)
    result = pilot.run("--volume", f"{program}:/program:ro", "/program", timeout=20)
    assert result.returncode in (125, 126, 127, 128 + 11, 128 + 9), (name, result)
    if result.returncode < 128:
        refused(result, result.returncode)
    assert not sandboxes_left(state)


def test_a_program_with_overlapping_segments_ends(pilot: Pilot, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(elf(phnum=8))
    program.chmod(0o755)
    result = pilot.run("--volume", f"{program}:/program:ro", "/program", timeout=20)
    assert result.returncode in (0, 126, 128 + 11, 128 + 9)


def test_a_program_cut_short(pilot: Pilot, tmp_path: Path) -> None:
    whole = Path(os.path.realpath("/bin/ls")).read_bytes()
    for length in (64, 1000, 5000, len(whole) // 2):
        program = tmp_path / "program"
        program.write_bytes(whole[:length])
        program.chmod(0o755)
        result = pilot.run("--volume", f"{program}:/program:ro", "/program", timeout=20)
        # What the host's kernel does too: refuse it, or let it run into the missing pages.
        assert result.returncode in (125, 126, 127, 128 + 7, 128 + 9, 128 + 11), (length, result)


def test_a_root_without_a_loader(pilot: Pilot, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    shutil.copy2(os.path.realpath("/bin/ls"), tmp_path / "bin" / "ls")
    tmp_path.chmod(0o755)
    result = pilot.run("--rootfs", tmp_path, "/bin/ls")
    assert "loader" in refused(result, result.returncode)
    assert result.returncode in (126, 127)
