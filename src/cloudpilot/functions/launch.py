"""What an instance of a function runs: its program, its environment, and the directories that it sees."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudpilot.functions.instance import PORT
from cloudpilot.functions.records import REGION

if TYPE_CHECKING:
    from cloudpilot.functions.code import Codes
    from cloudpilot.functions.records import Function

_RUNTIME = os.path.join(os.path.dirname(os.path.abspath(__file__)), "runtime")


@dataclass(frozen=True, slots=True)
class Launch:
    """What an instance runs.

    Attributes:
        args: The program.
        env: Its environment.
        workdir: Where it starts.
        volumes: Directories of the host that it sees, read-only.
        root: Directory of the host that it sees as root; none shows the host's programs.
    """

    args: list[str]
    env: dict[str, str]
    workdir: str
    volumes: list[dict[str, Any]]
    root: str | None = None


def launch_of(function: Function, codes: Codes) -> Launch:
    """What an instance of that function runs."""
    directory = codes.path(function.digest)
    volumes = [
        {"host": directory, "guest": "/var/task", "readonly": True},
        {"host": _RUNTIME, "guest": "/var/runtime", "readonly": True},
    ]
    return Launch(_program(function, directory), _environment(function), "/var/task", volumes)


def _program(function: Function, directory: str) -> list[str]:
    if function.runtime.startswith("provided"):
        return ["/var/task/bootstrap"]
    if os.path.isdir(os.path.join(directory, "awslambdaric")):
        return ["python3", "-m", "awslambdaric", function.handler]
    return ["python3", "-B", "/var/runtime/bootstrap.py"]


def _environment(function: Function) -> dict[str, str]:
    return {
        "HOME": "/tmp",
        "PATH": "/var/task:/usr/local/bin:/usr/bin:/bin",
        "PYTHONPATH": "/var/task",
        "PYTHONUNBUFFERED": "1",
        **function.env,
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{PORT}",
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_VERSION": function.version,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
        "AWS_LAMBDA_LOG_GROUP_NAME": f"/aws/lambda/{function.name}",
        "AWS_LAMBDA_LOG_STREAM_NAME": "local",
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.runtime}",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "LAMBDA_TASK_ROOT": "/var/task",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "_HANDLER": function.handler,
    }
