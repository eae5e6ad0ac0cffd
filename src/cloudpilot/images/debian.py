"""The image `base`: a Debian root with Python and Node, made on this host out of Debian's packages by `mmdebstrap`.

It has E2B's user `user`, whose home is `/home/user`, since programs written for E2B name it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile

from cloudpilot.errors import NotFoundException, SandboxException
from cloudpilot.images.image import Image, ImageConfig
from cloudpilot.images.store import Images, Progress

NAME = "base"
SUITE = "bookworm"
MIRROR = "http://deb.debian.org/debian"
PACKAGES = (
    "bash", "ca-certificates", "curl", "git", "iproute2", "less", "nodejs", "procps", "python3", "python3-pip", "python3-venv", "sudo",
    "unzip",
)  # fmt: skip
_LEFT_OUT = ("/usr/share/man", "/usr/share/doc", "/usr/share/locale")
"""What only people who read manuals need."""
BUILD_TIMEOUT = 1800.0
"""Seconds for downloading and installing 200 packages over a slow line."""
USER_ID = 1000
_MAKE_USER = (
    f'chroot "$1" useradd --create-home --uid {USER_ID} --shell /bin/bash user'
    ' && ln -sf python3 "$1/usr/bin/python"'
    " && echo 'user ALL=(ALL:ALL) NOPASSWD: ALL' > \"$1/etc/sudoers.d/user\""
)


def build(images: Images, *, mirror: str = MIRROR, more: list[str] | None = None, name: str = NAME, progress: Progress = print) -> Image:
    """Makes it, in the place of an older one."""
    tool = shutil.which("mmdebstrap")
    if tool is None:
        raise NotFoundException("The program `mmdebstrap`, which puts Debian roots together, is missing", "`apt-get install mmdebstrap`")
    images.prepare()
    with tempfile.TemporaryDirectory(dir=os.path.join(images.directory, "temporary"), prefix="debian-") as directory:
        target = os.path.join(directory, "root.tar")
        options = [f"--dpkgopt=path-exclude={each}/*" for each in _LEFT_OUT] + [f"--aptopt={each}" for each in _proxies()]
        included = ",".join([*PACKAGES, *(more or [])])
        command = [tool, "--quiet", "--variant=minbase", "--format=tar", f"--include={included}", *options]
        command += [f"--customize-hook={_MAKE_USER}", SUITE, target, mirror]
        progress(f"installing {len(PACKAGES) + len(more or [])} Debian packages and what they need, from {mirror}")
        environment = {**os.environ, "TMPDIR": directory}
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=BUILD_TIMEOUT, check=False, env=environment)
        except subprocess.TimeoutExpired:
            raise SandboxException(f"Debian's packages were not installed within {BUILD_TIMEOUT:g} s", "give a nearer `--mirror`") from None
        if done.returncode:
            last = [line for line in done.stderr.splitlines() if line.strip()][-3:]
            hint = "give a `--mirror` that this host reaches; users other than root need `uidmap` and numbers in /etc/subuid"
            raise SandboxException(f"Debian's packages were not installed: {' / '.join(last)}", hint)
        progress("unpacking")
        config = ImageConfig(command=["/bin/bash"], environment={"LANG": "C.UTF-8"}, workdir="/home/user", user="user")
        return images.add(name, None, [target], config, progress)


def _proxies() -> list[str]:
    """How the host's own apt reaches its mirrors."""
    found = []
    for name in ("Acquire::http::Proxy", "Acquire::https::Proxy"):
        asked = subprocess.run(["apt-config", "dump", "--no-empty", "--format", "%v", name], capture_output=True, text=True, check=False)
        if asked.returncode == 0 and asked.stdout.strip():
            found.append(f'{name} "{asked.stdout.strip()}"')
    return found
