"""The main job, for `make demo`: untrusted programs behind our kernel, from the command line and from Python, with the times."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cloudpilot import Sandbox, SandboxException

PILOT = str(Path(sys.executable).parent / "pilot")
TIMEOUT = 60.0

C_PROGRAM = 'main() { for (int i = 1; i <= 3; i++) printf("%d ", i * i); puts("from C"); }'
JOBS: list[tuple[str, list[str], str]] = [
    ("/bin/true", ["/bin/true"], ""),
    ("a shell with a pipe", ["sh", "-c", "seq 1 100 | grep -c 7"], "19"),
    ("whose kernel?", ["uname", "-sr"], "Linux 6.12.0-cloudpilot"),
    ("python3", ["/usr/bin/python3", "-c", "print(6 * 7)"], "42"),
    ("perl", ["perl", "-e", "print join(' ', map { $_ ** 2 } 1 .. 5)"], "1 4 9 16 25"),
    ("gcc, and what it made", ["sh", "-c", 'cd /tmp; echo "$0" | gcc -w -include stdio.h -xc -; ./a.out', C_PROGRAM], "1 4 9 from C"),
    ("read the host's secrets", ["sh", "-c", "cat /etc/shadow /root/.ssh/* 2>/dev/null || echo refused"], "refused"),
    ("use 64 MiB more than it may", ["--memory", "64m", "sh", "-c", "head -c 128m /dev/zero > /dev/shm/x || echo refused"], "refused"),
]


def on_the_command_line(arguments: list[str]) -> str:
    """What a program printed that was run by `pilot run`."""
    done = subprocess.run([PILOT, "run", *arguments], capture_output=True, text=True, timeout=TIMEOUT, check=False)
    if done.returncode != 0:
        raise SandboxException(f"status {done.returncode}: {done.stderr.strip()}")
    return done.stdout.strip()


class InPython:
    """The SDK's part: one sandbox, many commands."""

    def __init__(self) -> None:
        self.sandbox: Sandbox | None = None

    def create(self) -> str:
        """Starts the sandbox."""
        self.sandbox = Sandbox.create(timeout=TIMEOUT)
        return "running"

    def command(self) -> str:
        """Runs a command."""
        assert self.sandbox is not None
        return self.sandbox.commands.run("python3 -c 'print(6*7)'").stdout.strip()

    def hundred(self) -> str:
        """Runs a hundred commands, ten at a time."""
        assert self.sandbox is not None
        total = 0
        for _ in range(10):
            handles = [self.sandbox.commands.run("echo 1", background=True) for _ in range(10)]
            total += sum(int(handle.wait().stdout) for handle in handles)
        return str(total)

    def files(self) -> str:
        """Moves a file in and out."""
        assert self.sandbox is not None
        data = bytes(range(256)) * 4096
        self.sandbox.files.write("/tmp/data", data)
        return "the same" if self.sandbox.files.read("/tmp/data", format="bytes") == data else "different"

    def kill(self) -> str:
        """Ends the sandbox."""
        assert self.sandbox is not None
        return "gone" if self.sandbox.kill() else "was not there"


def main() -> int:
    """Runs everything; answers how many things went wrong."""
    python = InPython()
    steps: list[tuple[str, Callable[[], str], str]] = [
        (f"pilot run: {name}", lambda arguments=arguments: on_the_command_line(arguments), expected)  # type: ignore[misc]
        for name, arguments, expected in JOBS
    ]
    steps += [
        ("Sandbox.create()", python.create, "running"),
        ("commands.run: python3", python.command, "42"),
        ("commands.run: 100 commands", python.hundred, "100"),
        ("files.write, files.read: 1 MiB", python.files, "the same"),
        ("sandbox.kill()", python.kill, "gone"),
    ]
    failures = 0
    print(f"\n{'what':<42}{'answer':<28}{'time':>9}")
    for name, step, expected in steps:
        begin = time.perf_counter()
        try:
            answer = step()
        except (SandboxException, subprocess.TimeoutExpired) as error:
            answer = f"FAILED: {error}"
        taken = (time.perf_counter() - begin) * 1000
        if answer != expected:
            failures += 1
            answer = answer if answer.startswith("FAILED") else f"WRONG: {answer}"
        print(f"{name:<42}{answer:<28}{taken:>6.1f} ms")
    print("\nTimes of `pilot run` hold Python's own start. `make bench` measures beside runc and runsc.")
    return failures


if __name__ == "__main__":
    sys.exit(min(main(), 1))
