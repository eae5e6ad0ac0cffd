"""Linux semantics in detail: programs that check hundreds of cases run on the host's Linux first, then inside; both must say the same."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from harness import Pilot, Result

FAMILIES = [
    "files",
    "processes",
    "signals",
    "futexes",
    "pipes",
    "options",
    "unix_sockets",
    "internet",
    "netlink",
    "timers",
    "memory",
    "credentials",
    "ttys",
    "ipc",
    "filters",
    "tracedfilters",
    "listeners",
    "dispatches",
    "tracing",
    "tracees",
    "tracers",
    "seizing",
    "contents",
    "paths",
    "namespaces",
    "numbers",
    "sightings",
    "strangers",
    "bounds",
    "mappings",
    "descriptors",
    "processfiles",
    "leases",
    "memfds",
    "aio",
    "notices",
    "paging",
]

pytestmark = [pytest.mark.timeout(300), pytest.mark.skipif(os.geteuid() != 0, reason="the cases about users need root on the host, too")]


def failures(output: str) -> list[str]:
    """The lines of cases that failed."""
    return [line for line in output.splitlines() if not line.startswith("ok ")]


@pytest.mark.parametrize("family", FAMILIES)
def test_family(pilot: Pilot, guests: Path, family: str) -> None:
    native = subprocess.run([guests / family], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=200, check=False)
    assert native.returncode == 0, native.stdout[-2000:]
    # A case that fails on this host says something about the host only.
    excused = {line.split(" got ")[0] for line in failures(native.stdout)}
    judge(pilot.run("--volume", f"{guests}:/guests:ro", "--", f"/guests/{family}"), native.stdout, excused)


def judge(result: Result, native: str, excused: set[str]) -> None:
    """What was said inside is what was said outside, but for what is excused."""
    inside = result.stdout.decode()
    found = [line for line in failures(inside) if line.split(" got ")[0] not in excused]
    said = result.stderr.decode()[-2000:]
    assert not found, said
    assert result.returncode == 0, said
    assert len(inside.splitlines()) == len(native.splitlines())


@pytest.mark.parametrize("where", ["/dev/shm", "/volume"])
@pytest.mark.parametrize("family", ["contents", "paths"])
def test_files_everywhere(pilot: Pilot, guests: Path, tmp_path: Path, family: str, where: str) -> None:
    """What holds in the root holds on other filesystems, but for what a volume keeps from the host."""
    native = subprocess.run([guests / family], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=200, check=False)
    tmp_path.chmod(0o777)
    options = ["--volume", f"{guests}:/guests:ro", "--volume", f"{tmp_path}:/volume", "--env", f"CASES_IN={where}"]
    judge(pilot.run(*options, "--", f"/guests/{family}"), native.stdout, VOLUME_DIFFERS if where == "/volume" else set())


# Owners and set-id bits of a volume are the host's business, and a read is a read for the host.
VOLUME_DIFFERS = {
    f"FAIL {name}"
    for name in [
        "a write by root does not",
        "O_NOATIME",
        "all modes",
        "tmpfile",
        "sticky own",
        "set-group-id directory",
        "and its group",
        "all bits",
        "own chmod",
        "own chown to the same",
        "which drops set-id bits",
        "set-group-id of another group",
        "is dropped",
        "but not the locking bit",
        "root reads",
        "lchown of a link",
        "owner of the link",
    ]
}
