"""`pilot run`: statuses, streams, and what the options do."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Pilot, Terminal

Start = Callable[..., "subprocess.Popen[bytes]"]


def test_the_programs_output_and_status_are_ours(pilot: Pilot) -> None:
    result = pilot.run("--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (result.returncode, result.stdout, result.stderr) == (7, b"out\n", b"err\n")


def test_a_program_that_ends_well_has_status_0(pilot: Pilot) -> None:
    assert pilot.run("/bin/true").returncode == 0
    assert pilot.run("/bin/false").returncode == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_signal_gives_128_and_its_number(pilot: Pilot, number: int) -> None:
    assert pilot.run("--", "sh", "-c", f"kill -{number} $$").returncode == 128 + number


def test_streams_are_binary_safe(pilot: Pilot) -> None:
    data = bytes(range(256)) * 4096
    result = pilot.run("cat", stdin=data)
    assert result.returncode == 0
    assert result.stdout == data


def test_standard_input_at_its_end(pilot: Pilot) -> None:
    assert pilot.run("cat").stdout == b""


def test_arguments_arrive_as_they_are(pilot: Pilot) -> None:
    words = ["a b", "", "--env", "$HOME", "ü", "*", "--"]
    assert pilot.output("printf", "[%s]", *words) == "".join(f"[{word}]" for word in words)


def test_options_after_the_program_are_its_own(pilot: Pilot) -> None:
    assert pilot.output("echo", "--memory", "x") == "--memory x\n"
    assert pilot.output("--", "echo", "--memory") == "--memory\n"


def test_variables(pilot: Pilot) -> None:
    out = pilot.output("--env", "A=1=2", "-e", "B=", "--", "/usr/bin/env")
    lines = out.splitlines()
    assert "A=1=2" in lines
    assert "B=" in lines
    assert any(line.startswith("PATH=/") for line in lines)


def test_the_hosts_variables_stay_outside(pilot: Pilot) -> None:
    env = {**os.environ, "SECRET_TOKEN": "hunter2", "WANTED": "yes"}
    out = pilot.output("--env", "WANTED", "--", "/usr/bin/env", env=env)
    assert "hunter2" not in out
    assert "WANTED=yes" in out.splitlines()


def test_working_directory(pilot: Pilot) -> None:
    assert pilot.output("--workdir", "/usr/bin", "pwd") == "/usr/bin\n"


def test_user(pilot: Pilot) -> None:
    assert pilot.output("--user", "1000:100", "--", "sh", "-c", "id -u; id -g") == "1000\n100\n"
    assert pilot.output("--user", "1234", "--", "sh", "-c", "id -u; id -g") == "1234\n1234\n"
    assert pilot.output("id", "-u") == "0\n"


def test_hostname(pilot: Pilot) -> None:
    assert pilot.output("--hostname", "box-1", "uname", "-n") == "box-1\n"


def test_the_kernel_is_ours(pilot: Pilot) -> None:
    assert pilot.output("uname", "-r").strip().endswith("-cloudpilot")


def test_a_volume_is_shared_with_the_host(pilot: Pilot, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from the host\n")
    out = pilot.output("--volume", f"{tmp_path}:/data", "--", "sh", "-c", "cat /data/in; echo inside > /data/out; mkdir /data/d")
    assert out == "from the host\n"
    assert (tmp_path / "out").read_text() == "inside\n"
    assert (tmp_path / "d").is_dir()


def test_a_read_only_volume_refuses_writes(pilot: Pilot, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from the host\n")
    result = pilot.run("--volume", f"{tmp_path}:/data:ro", "--", "sh", "-c", "cat /data/in; echo x > /data/out")
    assert result.stdout == b"from the host\n"
    assert result.returncode != 0
    assert b"Read-only" in result.stderr
    assert os.listdir(tmp_path) == ["in"]


def test_a_volume_may_be_one_file(pilot: Pilot, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("one\n")
    assert pilot.output("--volume", f"{tmp_path / 'file'}:/etc/one:ro", "cat", "/etc/one") == "one\n"


def test_changes_to_the_root_stay_in_memory(pilot: Pilot) -> None:
    name = f"cloudpilot-{os.getpid()}"
    assert (
        pilot.output(
            "--", "sh", "-c", f"echo x > /usr/{name}; cat /usr/{name}; rm /usr/bin/true; ls /usr/bin/true 2>/dev/null || echo gone"
        )
        == "x\ngone\n"
    )
    assert not Path(f"/usr/{name}").exists()
    assert Path("/usr/bin/true").exists()


def test_a_root_directory(pilot: Pilot, tmp_path: Path, guests: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "hello").write_bytes((guests / "hello").read_bytes())
    (tmp_path / "bin" / "hello").chmod(0o755)
    tmp_path.chmod(0o755)
    assert pilot.output("--rootfs", tmp_path, "/bin/hello", "there") == "hello there\n"


def test_homes_and_secrets_are_not_shown(pilot: Pilot) -> None:
    out = pilot.script("ls -A /root /home /srv /run/user 2>/dev/null || true; echo; cat /etc/shadow 2>/dev/null || true")
    # The sandbox's own, without any password.
    assert {line.split(":")[1] for line in out.rpartition("\n\n")[2].splitlines()} <= {"*"}
    assert ".ssh" not in out
    assert ".bashrc" not in out


def test_timeout(pilot: Pilot) -> None:
    begin = time.monotonic()
    result = pilot.run("--timeout", "0.5", "sleep", "600")
    assert result.returncode == 124
    assert b"error: The program ran longer than 0.5 s" in result.stderr
    assert time.monotonic() - begin < 60


def test_a_timeout_that_is_not_reached(pilot: Pilot) -> None:
    assert pilot.run("--timeout", "30s", "/bin/true").returncode == 0


def test_signals_are_handed_on(start: Start) -> None:
    process = start("run", "--", "sh", "-c", "trap 'echo got; exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 3
    assert process.stdout.read() == b"got\n"


def test_the_reader_of_our_output_may_leave(start: Start) -> None:
    process = start("run", "yes")
    assert process.stdout is not None
    assert process.stdout.read(4) == b"y\ny\n"
    process.stdout.close()
    process.stdout = None
    assert process.wait(timeout=10) in (1, 141)


def test_strace_prints_calls_on_standard_error(pilot: Pilot) -> None:
    result = pilot.run("--strace", "cat", "/etc/hostname")
    assert result.returncode == 0
    assert b"openat(" in result.stderr
    assert b"/etc/hostname" in result.stderr
    assert result.stdout == b"cloudpilot\n"


def test_no_network_but_loopback(pilot: Pilot) -> None:
    code = "import socket; s = socket.socket(); s.settimeout(5); print(s.connect_ex(('192.0.2.1', 80)) != 0)"
    assert pilot.output("/usr/bin/python3", "-c", code) == "True\n"


def test_unprivileged() -> None:
    """The same, as a user without rights on the host."""
    if os.geteuid() != 0:
        pytest.skip("the other tests are run without rights already")
    import shutil
    import tempfile

    directory = Path(tempfile.mkdtemp(prefix="cpu-"))
    try:
        binary = directory / "cloudpilot-sandbox"
        shutil.copy2(Path(__file__).parent.parent / "src/cloudpilot/_bin/cloudpilot-sandbox", binary)
        os.chown(directory, 65534, 65534)
        config = directory / "config"
        config.write_text(
            '{"id": "unprivileged", "args": ["sh", "-c", "id -u; cat /etc/hostname"], "root": {"kind": "host"},'
            ' "env": {"PATH": "/usr/bin:/bin"}, "state_dir": "%s/state/unprivileged"}' % directory
        )
        with config.open("rb") as file:
            result = subprocess.run(
                [binary, "run", "--config-fd", str(file.fileno())],
                pass_fds=[file.fileno()],
                user=65534,
                group=65534,
                extra_groups=[],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=30,
                check=False,
            )
        assert (result.returncode, result.stdout) == (0, b"0\ncloudpilot\n"), result.stderr
        assert os.listdir(directory / "state") == []
    finally:
        shutil.rmtree(directory)


def test_terminal_with_job_control_and_window_size() -> None:
    import fcntl
    import struct
    import termios

    terminal = Terminal("run", "--tty", "--env", "PS1=$ ", "--", "bash", "--norc", "-i")
    terminal.expect(b"$ ")
    terminal.type(b"tty\n")
    terminal.expect(b"/dev/pts/")
    terminal.expect(b"$ ")
    fcntl.ioctl(terminal.master, termios.TIOCSWINSZ, struct.pack("HHHH", 33, 101, 0, 0))
    time.sleep(0.3)
    terminal.type(b"stty size\n")
    terminal.expect(b"33 101")
    terminal.expect(b"$ ")
    terminal.type(b"sleep 50\n")
    time.sleep(0.5)
    terminal.type(b"\x1a")
    terminal.expect(b"Stopped")
    terminal.type(b"jobs; kill %1; fg 2>/dev/null; echo en'd'\n")
    terminal.expect(b"end")
    terminal.type(b"sleep 50\n")
    time.sleep(0.5)
    terminal.type(b"\x03")
    terminal.expect(b"$ ")
    terminal.type(b"exit 5\n")
    assert terminal.status() == 5
