"""A small image for tests: busybox, with the names that E2B's client and builds expect."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import oci
from oci import Builder, directory, file, symlink, tar

from cloudpilot.images.store import Images

_BUSYBOX = "/bin/busybox"
_BASH = b'#!/bin/busybox sh\nexec /bin/busybox sh "$@"\n'
_OTHERS = ("busybox", "bash")


def _libraries() -> list[oci.Entry]:
    """What busybox is linked with, unless it is Debian's static one."""
    told = subprocess.run(["ldd", _BUSYBOX], capture_output=True, text=True, check=False).stdout
    paths = [word for line in told.splitlines() for word in line.split() if word.startswith("/")]
    return [file(path.lstrip("/"), Path(path).read_bytes(), mode=0o755) for path in paths]


def layer() -> bytes:
    """Its only layer."""
    applets = subprocess.run([_BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split()
    return tar(
        [
            directory("bin"), file("bin/busybox", Path(_BUSYBOX).read_bytes(), mode=0o755), file("bin/bash", _BASH, mode=0o755),
            *_libraries(),
            *(symlink(f"bin/{name}", "busybox") for name in applets if name not in _OTHERS),
            directory("etc"), file("etc/passwd", b"root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"),
            file("etc/group", b"root:x:0:\nuser:x:1000:\n"), directory("root", mode=0o700), directory("tmp", mode=0o1777),
            directory("home"), directory("home/user", uid=1000, gid=1000), file("etc/old", b"old\n"), directory("srv"), file("srv/one", b"1"),
        ]
    )  # fmt: skip


def layout(path: Path) -> Path:
    """A layout that holds it."""
    config = {"Env": ["PATH=/bin", "FROM_IMAGE=yes"], "WorkingDir": "/home/user", "User": "user", "Cmd": ["/bin/sh"]}
    Builder(path).image(layer(), config=config, tag="small")
    return path


def install(directory_of_images: Path, scratch: Path, name: str = "base") -> None:
    """Adds it to a service's images."""
    Images(str(directory_of_images)).import_layout(str(layout(scratch)), "small", name)


__all__ = ["install", "layer", "layout", "oci"]
