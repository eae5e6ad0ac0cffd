"""Compiles the Rust binaries into `src/cloudpilot/_bin/`: hatchling's build hook, and a script for `make build`."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # as a script it runs before anything is installed
    BuildHookInterface = object  # type: ignore[assignment,misc]

BINARIES = ("cloudpilot-sandbox",)
TARGET = "x86_64-unknown-linux-gnu"
REMEDY = "install it with `curl https://sh.rustup.rs -sSf | sh -s -- -y --profile minimal`, or see https://rustup.rs"


def find_cargo(root: Path) -> str:
    """Answers where a cargo is that can build this, or ends with a line that says how to get one."""
    home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    cargo = shutil.which("cargo") or shutil.which("cargo", path=str(home / "bin"))
    if cargo is None:
        sys.exit(f"error: Cargo, which compiles the sandbox's kernel, is not installed; {REMEDY}")
    needed = tomllib.loads((root / "Cargo.toml").read_text())["workspace"]["package"]["rust-version"]
    answer = subprocess.run([cargo, "--version"], cwd=root, capture_output=True, text=True, check=False).stdout
    found = re.search(r"(\d+)\.(\d+)", answer)
    if found is None or (int(found[1]), int(found[2])) < tuple(map(int, needed.split("."))):
        sys.exit(f"error: Rust {needed} or later is needed, `{cargo}` is {answer.strip() or 'broken'}; {REMEDY}")
    return cargo


def compile_binaries(root: Path) -> None:
    """Builds what has changed, and puts the binaries into the package."""
    environment = {**os.environ, "PATH": f"{Path.home() / '.cargo' / 'bin'}:{os.environ.get('PATH', '')}"}
    # They would replace the flags of `.cargo/config.toml`, without which the binary does not run in its jail.
    environment.pop("RUSTFLAGS", None)
    environment.pop("CARGO_ENCODED_RUSTFLAGS", None)
    command = [
        find_cargo(root),
        "build",
        "--release",
        "--locked",
        "--target",
        TARGET,
        "--target-dir",
        str(root / "target"),
    ]
    for binary in BINARIES:
        command += ["--bin", binary]
    if subprocess.run(command, cwd=root, env=environment, check=False).returncode != 0:
        sys.exit("error: The Rust binaries did not compile; cargo has said why above")
    destination = root / "src" / "cloudpilot" / "_bin"
    destination.mkdir(exist_ok=True)
    for binary in BINARIES:
        built, installed = root / "target" / TARGET / "release" / binary, destination / binary
        if not installed.exists() or built.stat().st_mtime > installed.stat().st_mtime:
            # A binary that runs cannot be written to, but its name can be given to another.
            fresh = installed.with_suffix(".new")
            shutil.copy2(built, fresh)
            fresh.replace(installed)


class RustBinaries(BuildHookInterface):  # type: ignore[type-arg]
    """Adds the binaries to the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compiles them, and marks the wheel as being for this platform only."""
        if self.target_name != "wheel":
            return
        compile_binaries(Path(self.root))
        build_data["pure_python"] = False
        build_data["tag"] = "py3-none-linux_x86_64"


if __name__ == "__main__":
    compile_binaries(Path(__file__).resolve().parent)
