"""Where things are on the host: the binary, and the directories of sandboxes that run."""

from __future__ import annotations

import os

from cloudpilot.errors import NotFoundException

BINARY = "cloudpilot-sandbox"


def binary() -> str:
    """The program that runs a sandbox; `CLOUDPILOT_SANDBOX_BINARY` names another than the package's own."""
    path = os.environ.get("CLOUDPILOT_SANDBOX_BINARY") or os.path.join(
        os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "_bin", BINARY
    )
    if not os.access(path, os.X_OK):
        raise NotFoundException(f"The sandbox binary `{path}` is missing", "run `make build`, or install the package again")
    return path


def data_dir() -> str:
    """Where this user's lasting things are: images, and what the service remembers. It need not exist."""
    if os.geteuid() == 0:
        return "/var/lib/cloudpilot"
    state = os.environ.get("XDG_STATE_HOME")
    return os.path.join(state if state and os.path.isabs(state) else os.path.expanduser("~/.local/state"), "cloudpilot")


def state_root() -> str:
    """The directory that holds one directory for each of this user's sandboxes. It need not exist."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime and os.path.isabs(runtime):
        return os.path.join(runtime, "cloudpilot")
    user = os.geteuid()
    runtime = f"/run/user/{user}"
    if os.path.isdir(runtime) and os.access(runtime, os.W_OK | os.X_OK):
        return os.path.join(runtime, "cloudpilot")
    return f"/tmp/cloudpilot-{user}"


def state_dir(sandbox_id: str) -> str:
    """A sandbox's own directory."""
    return os.path.join(state_root(), sandbox_id)


def control_socket(sandbox_id: str) -> str:
    """Where a sandbox listens."""
    return os.path.join(state_dir(sandbox_id), "control.sock")
