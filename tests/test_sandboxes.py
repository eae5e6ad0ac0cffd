"""Sandboxes that outlive a command: detached ones, `exec`, `ps`, `kill`, `stats`, and that nothing is left of those whose starter dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from harness import Pilot, Terminal, eventually, process_lives, sandboxes_left

Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def detached(pilot: Pilot) -> str:
    """The id of a sandbox called `box` that sleeps; the test ends it."""
    result = pilot.run("--detach", "--name", "box", "sleep", "1000")
    assert result.returncode == 0, result.stderr
    return result.stdout.decode().strip()


def record(pilot: Pilot) -> dict[str, object]:
    """The only sandbox of `pilot ps`."""
    found = json.loads(pilot("ps", "--json").stdout)
    assert len(found) == 1
    return dict(found[0])


def test_life_of_a_detached_sandbox(pilot: Pilot, detached: str) -> None:
    found = record(pilot)
    assert (found["id"], found["name"], found["args"]) == (detached, "box", ["sleep", "1000"])
    assert detached in pilot("ps").stdout.decode()
    assert pilot("ps", "-q").stdout.decode().split() == [detached]
    kernel = int(str(found["kernel_pid"]))
    assert process_lives(kernel)
    result = pilot("kill", "box")
    assert (result.returncode, result.stdout.decode().strip()) == (0, detached)
    assert not process_lives(kernel)
    assert json.loads(pilot("ps", "--json").stdout) == []


def test_exec(pilot: Pilot, detached: str) -> None:
    data = bytes(range(256)) * 1000
    result = pilot("exec", "box", "cat", stdin=data)
    assert (result.returncode, result.stdout) == (0, data)
    result = pilot(
        "exec",
        "--env",
        "A=b",
        "--workdir",
        "/usr",
        "--user",
        "7:8",
        detached[:6],
        "--",
        "sh",
        "-c",
        "echo $A $PWD $(id -u) $(id -g); exit 9",
    )
    assert (result.returncode, result.stdout) == (9, b"b /usr 7 8\n"), result.stderr
    assert pilot("exec", "box", "sh", "-c", "kill -9 $$").returncode == 137
    assert pilot("exec", "box", "no-such-program").returncode == 127
    assert pilot("exec", "box", "/etc/passwd").returncode == 126
    assert pilot("exec", "box", "sh", "-c", "echo x > /tmp/shared").returncode == 0
    assert pilot("exec", "box", "cat", "/tmp/shared").stdout == b"x\n"
    assert pilot("kill", "--all").returncode == 0


def test_exec_hands_signals_on(pilot: Pilot, detached: str, start: Start) -> None:
    process = start("exec", "box", "--", "sh", "-c", "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=10) == 3
    assert pilot("kill", "box").returncode == 0


def test_exec_ends_with_the_sandbox(pilot: Pilot, detached: str, start: Start) -> None:
    process = start("exec", "box", "--", "sh", "-c", "echo ready; sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    assert pilot("kill", "box").returncode == 0
    assert process.wait(timeout=10) in (125, 137)


def test_stats(pilot: Pilot, detached: str) -> None:
    figures = json.loads(pilot("stats", "--json").stdout)
    assert figures[0]["id"] == detached
    if os.geteuid() == 0:
        assert figures[0]["host"]["memory_bytes"] > 100_000
    else:
        # Nobody but root may look into the kernel process, and half a sum is none.
        assert figures[0]["host"]["memory_bytes"] is None
    assert figures[0]["guest"]["memory_bytes"] > 10_000
    assert figures[0]["host"]["processes"] >= 3
    assert "HOST MEMORY" in pilot("stats", "box").stdout.decode()
    pilot("kill", "box")


def test_names_are_not_given_twice(pilot: Pilot, detached: str) -> None:
    result = pilot.run("--name", "box", "/bin/true")
    assert result.returncode == 125
    assert b"`box` runs already" in result.stderr
    pilot("kill", "box")


def test_a_detached_sandbox_ends_with_its_program(pilot: Pilot, state: Path) -> None:
    assert pilot.run("--detach", "sleep", "0.2").returncode == 0
    eventually(lambda: not sandboxes_left(state))


def test_a_detached_sandbox_has_a_timeout(pilot: Pilot, state: Path) -> None:
    assert pilot.run("--detach", "--timeout", "0.3", "sleep", "1000").returncode == 0
    eventually(lambda: not sandboxes_left(state))


def control_groups(sandbox_id: str) -> list[str]:
    return [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/cloudpilot-{sandbox_id}")]


@pytest.mark.parametrize("killed", ["supervisor", "kernel"])
def test_nothing_stays_when_a_process_of_it_is_killed(pilot: Pilot, state: Path, start: Start, killed: str) -> None:
    process = start("run", "--memory", "256m", "--pids", "50", "--", "sh", "-c", "echo ready; sleep 1000 & sleep 1000")
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n", process.stderr and process.stderr.read()
    found = record(pilot)
    kernel, supervisor = int(str(found["kernel_pid"])), int(str(found["supervisor_pid"]))
    assert supervisor == process.pid
    os.kill(supervisor if killed == "supervisor" else kernel, signal.SIGKILL)
    assert process.wait(timeout=10) == (-9 if killed == "supervisor" else 125)
    eventually(lambda: not process_lives(kernel))
    eventually(lambda: not sandboxes_left(state))
    eventually(lambda: not control_groups(str(found["id"])))


STARTER = """
import sys, time
from cloudpilot import Sandbox
sandbox = Sandbox.create()
handle = sandbox.commands.run("sleep 1000", background=True)
print(sandbox.sandbox_id, flush=True)
time.sleep(1000)
"""


def test_nothing_stays_when_the_process_of_the_sdk_is_killed(pilot: Pilot, state: Path) -> None:
    import sys

    with subprocess.Popen([sys.executable, "-c", STARTER], stdout=subprocess.PIPE, text=True) as starter:
        try:
            assert starter.stdout is not None
            sandbox_id = starter.stdout.readline().strip()
            found = record(pilot)
            assert found["id"] == sandbox_id
        finally:
            starter.kill()
        starter.wait(timeout=10)
    eventually(lambda: not process_lives(int(str(found["kernel_pid"]))))
    eventually(lambda: not process_lives(int(str(found["supervisor_pid"]))))
    eventually(lambda: not sandboxes_left(state))


def test_what_was_left_by_a_power_cut_is_swept_away(pilot: Pilot, state: Path) -> None:
    stale = state / "cloudpilot" / "stale"
    stale.mkdir(parents=True, mode=0o700)
    (stale / "sandbox.json").write_text(
        json.dumps({
            "id": "stale", "name": None, "args": None, "supervisor_pid": 999_999_999, "supervisor_start": 1, "kernel_pid": 1,
            "created": 0.0, "user": 0, "root": "host", "network": "none", "cgroups": [],
        })
    )  # fmt: skip
    assert json.loads(pilot("ps", "--json").stdout) == []
    assert pilot.run("/bin/true").returncode == 0
    eventually(lambda: not stale.exists())


def test_an_idle_sandbox_uses_no_processor_time(pilot: Pilot, detached: str) -> None:
    def used() -> float:
        return float(json.loads(pilot("stats", "--json").stdout)[0]["host"]["cpu_seconds"])

    time.sleep(0.5)
    before = used()
    time.sleep(3)
    # The questions themselves cost the kernel process something.
    assert used() - before <= 0.02
    pilot("kill", "box")


def test_a_sandbox_that_does_not_answer_is_ended_by_force(pilot: Pilot, detached: str, state: Path) -> None:
    kernel = int(str(record(pilot)["kernel_pid"]))
    os.kill(kernel, signal.SIGSTOP)
    assert pilot("kill", "box", timeout=60).returncode == 0
    assert not sandboxes_left(state)
    eventually(lambda: not process_lives(kernel))


def test_exec_with_a_terminal(pilot: Pilot, detached: str) -> None:
    terminal = Terminal("exec", "--tty", "--env", "PS1=$ ", "box", "--", "bash", "--norc", "-i")
    terminal.expect(b"$ ")
    terminal.type(b"test -t 0 && tty\n")
    terminal.expect(b"/dev/pts/")
    terminal.expect(b"$ ")
    terminal.type(b"sleep 50\n")
    time.sleep(0.5)
    terminal.type(b"\x03")
    terminal.expect(b"$ ")
    terminal.type(b"exit 6\n")
    assert terminal.status() == 6
    assert pilot("kill", "box").returncode == 0
