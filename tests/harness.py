"""What tests stand on: `pilot` with deadlines, terminals, and looks at what is there."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cloudpilot.cli import run_command
from cloudpilot.engine import config, paths

REPOSITORY = Path(__file__).resolve().parent.parent
PILOT = Path(sys.executable).parent / "pilot"
GUESTS = Path(__file__).resolve().parent / "guests"
LEFTOVER_PATIENCE = 60.0

Result = subprocess.CompletedProcess[bytes]


def sandboxes_left(state: Path) -> list[str]:
    """Directories of sandboxes that still exist."""
    root = state / "cloudpilot"
    return sorted(os.listdir(root)) if root.is_dir() else []


class Pilot:
    """Runs `pilot`, never longer than a deadline."""

    def __call__(self, *arguments: object, stdin: bytes | int = b"", timeout: float = 200, **options: object) -> Result:
        command = [str(PILOT), *map(str, arguments)]
        given = {"stdin": stdin} if isinstance(stdin, int) else {"input": stdin}
        return subprocess.run(command, capture_output=True, timeout=timeout, check=False, **given, **options)  # type: ignore[call-overload,no-any-return]

    def run(self, *arguments: object, **options: object) -> Result:
        """Runs `pilot run`."""
        return self("run", *arguments, **options)  # type: ignore[arg-type]

    def directly(self, *arguments: str, stdin: int) -> Result:
        """Runs what `pilot run` would become, where Python itself would refuse what standard input is."""
        descriptor = config.as_descriptor(run_command.configuration(list(arguments)))
        try:
            command = [paths.binary(), "run", "--config-fd", str(descriptor)]
            return subprocess.run(command, stdin=stdin, pass_fds=[descriptor], capture_output=True, timeout=200, check=False)
        finally:
            os.close(descriptor)

    def output(self, *arguments: object, **options: object) -> str:
        """Standard output of a `pilot run` that must succeed."""
        result = self.run(*arguments, **options)
        assert result.returncode == 0, (result.returncode, result.stdout[-2000:], result.stderr[-2000:])
        return result.stdout.decode()

    def script(self, text: str, *options: object, shell: str = "bash", **more: object) -> str:
        """Standard output of a shell script that must succeed, inside, in an empty directory."""
        return self.output(*options, "--", shell, "-euc", "mkdir -p /tmp/work; cd /tmp/work\n" + text, **more)


class Terminal:
    """A `pilot` behind a terminal that the test holds."""

    def __init__(self, *arguments: str) -> None:
        self.child, self.master = pty.fork()
        if self.child == 0:
            os.execv(PILOT, [str(PILOT), *arguments])
        self.seen = b""

    def expect(self, text: bytes, patience: float = 15.0) -> None:
        deadline = time.monotonic() + patience
        while text not in self.seen:
            left = deadline - time.monotonic()
            assert left > 0, (text, self.seen)
            if select.select([self.master], [], [], left)[0]:
                try:
                    self.seen += os.read(self.master, 4096)
                except OSError:
                    break
        assert text in self.seen, (text, self.seen)
        self.seen = self.seen.partition(text)[2]

    def type(self, data: bytes) -> None:
        os.write(self.master, data)

    def status(self) -> int:
        eventually(lambda: os.waitid(os.P_PID, self.child, os.WEXITED | os.WNOHANG | os.WNOWAIT))
        return os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])


def eventually(condition: Callable[[], object], patience: float = 90.0) -> None:
    """Waits until something is true."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def process_lives(pid: int) -> bool:
    """Whether a process of the host is there and not only waiting to be noticed as dead."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
