"""The programs that attack from inside, compiled."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from harness import GUESTS

SOURCES = Path(__file__).resolve().parent / "guests"


@pytest.fixture(scope="session")
def attacks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory with the compiled programs of `tests/attacks/guests`; those called `…_bare` do without the C library."""
    directory = tmp_path_factory.mktemp("attacks")
    for source in SOURCES.glob("*.c"):
        target = directory / source.stem
        bare = ["-nostdlib", "-fno-stack-protector"] if source.stem.endswith("_bare") else ["-pthread"]
        options = ["-O1", "-static", "-w", "-mfsgsbase", f"-I{GUESTS}", *bare]
        subprocess.run(["gcc", *options, "-o", target, source], check=True, timeout=120)
        target.chmod(0o755)
    # Whoever the sandbox runs as must be able to read what it is shown.
    for path in (directory, *list(directory.parents)[:2]):
        path.chmod(0o755)
    return directory
