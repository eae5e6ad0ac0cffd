"""`pilot doctor`, completion, and the help."""

from __future__ import annotations

import json
import os
import shutil
import subprocess

import pytest
from harness import Pilot


def test_doctor_finds_that_the_default_runs(pilot: Pilot) -> None:
    result = pilot("doctor", "--json")
    found = json.loads(result.stdout)
    assert (result.returncode, found["runs"]) == (0, True), found
    names = {check["name"] for check in found["checks"]}
    assert {"sandbox", "user namespaces", "seccomp", "landlock", "control groups", "virtualization"} <= names
    for check in found["checks"]:
        assert check["reason"], check
        assert check["ok"] or check["remedy"], check


def test_doctor_says_when_it_does_not(pilot: Pilot) -> None:
    result = pilot("doctor", env={**os.environ, "XDG_RUNTIME_DIR": "/proc/nowhere"})
    assert result.returncode == 1
    assert b"FAIL sandbox" in result.stdout
    assert b"hint: " in result.stdout
    assert b"\x1b" not in result.stdout


def test_doctor_misses_the_binary(pilot: Pilot) -> None:
    result = pilot("doctor", env={**os.environ, "CLOUDPILOT_SANDBOX_BINARY": "/no/such/binary"})
    assert result.returncode == 1
    assert b"/no/such/binary" in result.stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_is_a_script_of_that_shell(pilot: Pilot, shell: str) -> None:
    script = pilot("completion", shell)
    assert script.returncode == 0
    assert b"--volume" in script.stdout or b"-l volume" in script.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script.stdout, check=True, timeout=20)
    else:
        print(f"the script was not parsed: {shell} is not installed")


def test_bash_completes(pilot: Pilot) -> None:
    script = pilot("completion", "bash").stdout.decode()
    script += "COMP_WORDS=(pilot run --vo); COMP_CWORD=2; _pilot; echo ${COMPREPLY[@]}"
    out = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, timeout=20).stdout
    assert out == "--volume\n"


def test_help_and_version(pilot: Pilot) -> None:
    import cloudpilot

    assert pilot("--version").stdout.decode() == f"pilot {cloudpilot.__version__}\n"
    assert b"pilot run" in pilot("--help").stdout
    for command in ("run", "exec", "ps", "kill", "stats", "doctor", "completion"):
        result = pilot(command, "--help")
        assert result.returncode == 0
        assert result.stdout.decode().lower().startswith(f"usage: pilot {command}")
