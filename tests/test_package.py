"""The package as others install it: a wheel that needs no Rust, a source distribution that holds it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from harness import REPOSITORY

pytestmark = pytest.mark.timeout(900)


def have_cargo() -> bool:
    return bool(shutil.which("cargo") or os.access(Path.home() / ".cargo/bin/cargo", os.X_OK))


def build(kind: str, directory: Path) -> Path:
    """Builds a distribution with the tools of this environment."""
    command = [sys.executable, "-m", "hatchling", "build", "--target", kind, "--directory", str(directory)]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=240, capture_output=True)
    (result,) = directory.iterdir()
    return result


@pytest.mark.skipif(not have_cargo(), reason="this user has no cargo, which builds the wheel")
def test_a_wheel_runs_where_there_is_no_rust(tmp_path: Path) -> None:
    wheel = build("wheel", tmp_path / "dist of it")
    assert wheel.name.endswith("-py3-none-linux_x86_64.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert "cloudpilot/_bin/cloudpilot-sandbox" in names
    assert "cloudpilot/py.typed" in names
    environment = tmp_path / "an environment"
    subprocess.run([sys.executable, "-m", "venv", environment], check=True, timeout=120)
    install = [environment / "bin" / "pip", "install", "-q", "--no-index", "--disable-pip-version-check", wheel]
    subprocess.run(install, check=True, timeout=120)
    bare = {"PATH": "/usr/bin:/bin", "XDG_RUNTIME_DIR": os.environ["XDG_RUNTIME_DIR"]}
    pilot = [environment / "bin" / "pilot", "run", "echo", "hello"]
    done = subprocess.run(pilot, env=bare, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (0, b"hello\n"), done


def test_a_source_distribution_holds_the_rust_sources(tmp_path: Path) -> None:
    with tarfile.open(build("sdist", tmp_path / "dist")) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"Cargo.toml", "Cargo.lock", ".cargo/config.toml", "hatch_build.py", "crates/sandbox/src/main.rs", "LICENSE"} <= names
    assert not any(name.startswith(("target/", ".venv/", "src/cloudpilot/_bin")) for name in names)


def test_building_without_rust_says_how_to_get_it(tmp_path: Path) -> None:
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    if any(os.access(f"{place}/cargo", os.X_OK) for place in ("/usr/bin", "/bin")):
        pytest.skip("this host has a cargo where it cannot be hidden")
    done = subprocess.run([sys.executable, "hatch_build.py"], cwd=REPOSITORY, env=environment, capture_output=True, timeout=30, check=False)
    assert done.returncode == 1
    assert done.stderr.decode().startswith("error: Cargo")
    assert "rustup" in done.stderr.decode()
    assert len(done.stderr.splitlines()) == 1
