"""What the benchmarks stand on: a small root directory that every peer runs, and the programs in it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from pathlib import Path

PROGRAMS = ("/bin/true", "/bin/sleep")
GUESTS = Path(__file__).parent / "guests"
DATA = "/data"
"""The file that guests read from."""
DATA_SIZE = 1 << 20
HOST_TREES = ("usr", "etc")
"""What of the host's root a container sees that is to run the host's programs."""
HOST_LINKS = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
HOST_EMPTY = ("dev", "proc", "sys", "tmp", "run", "root", "var/log", "var/lib/nginx")


class Ground:
    """A temporary directory with the root and whatever the peers keep."""

    def __init__(self) -> None:
        """Copies the programs with their libraries, and compiles the guests."""
        self._directory = tempfile.TemporaryDirectory(prefix="cloudpilot-bench-")
        self.path = Path(self._directory.name)
        self.root = self.path / "root"
        for empty in ("bin", "dev", "etc", "proc", "sys", "tmp"):
            (self.root / empty).mkdir(parents=True)
        for program in PROGRAMS:
            for file in (program, *libraries(program)):
                copy = self.root / file.lstrip("/")
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(Path(file).resolve(), copy)
        (self.root / DATA.lstrip("/")).write_bytes(bytes(DATA_SIZE))
        for source in sorted(GUESTS.glob("*.c")):
            compiled = self.root / "bin" / source.stem
            subprocess.run(["gcc", "-O2", "-static", "-o", str(compiled), str(source)], check=True, timeout=60)

    def host_root(self) -> Path:
        """A root for runtimes that mount the host's programs into it."""
        root = self.path / "host-root"
        if not root.exists():
            for name in (*HOST_TREES, *HOST_EMPTY):
                (root / name).mkdir(parents=True)
            for name, target in HOST_LINKS.items():
                (root / name).symlink_to(target)
        return root

    def close(self) -> None:
        """Removes everything."""
        self._directory.cleanup()


def libraries(program: str) -> list[str]:
    """The shared libraries and the loader of a program, by their absolute paths."""
    answer = subprocess.run(["ldd", program], capture_output=True, text=True, check=True, timeout=30).stdout
    return [path for line in answer.splitlines() for path in re.findall(r"(/\S+)", line)]
