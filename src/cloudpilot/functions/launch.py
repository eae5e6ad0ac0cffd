"""What an instance of a function runs: its program, its environment, and the directories that it sees."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudpilot.engine.config import PATH
from cloudpilot.functions import http_instance
from cloudpilot.functions.instance import PORT
from cloudpilot.functions.records import LATEST, REGION

if TYPE_CHECKING:
    from cloudpilot.functions.records import Function
    from cloudpilot.functions.registry import Registry
    from cloudpilot.images.image import Image

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
        user: Who it runs as, as numbers; none is root.
    """

    args: list[str]
    env: dict[str, str]
    workdir: str
    volumes: list[dict[str, Any]]
    root: str | None = None
    user: str | None = None


def launch_of(function: Function, registry: Registry) -> Launch:
    """What an instance of that function runs."""
    environment = _environment(function)
    if function.package == "Image":
        return _of_image(function, registry.images.get(image_name(function.digest)), environment)
    codes = registry.codes
    directory = codes.path(function.digest)
    layers = codes.merged([layer["digest"] for layer in function.layers]) if function.layers else None
    volumes = [
        {"host": directory, "guest": "/var/task", "readonly": True},
        {"host": _RUNTIME, "guest": "/var/runtime", "readonly": True},
    ]
    if layers is not None:
        volumes.append({"host": layers, "guest": "/opt", "readonly": True})
    return Launch(_program(function, directory, layers), environment, "/var/task", volumes)


def image_name(digest: str) -> str:
    """The name under which a function's image is kept: what others call it may become another image's name."""
    return f"cloudpilot-functions/{digest}:kept"


def _of_image(function: Function, image: Image, environment: dict[str, str]) -> Launch:
    own, given = image.config, function.image_config
    entry_point = given.get("EntryPoint") or own.entrypoint
    command = given.get("Command") or own.command
    user = image.user()
    variables = {"HOME": user.home, "PATH": PATH, **own.environment}
    # What describes the function stands; what is only the place of code in an archive does not.
    skipped = ("HOME", "PATH", "PYTHONPATH", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR", "_HANDLER")
    variables.update({name: value for name, value in environment.items() if name not in skipped or name in function.env})
    if command and "_HANDLER" not in variables:
        variables["_HANDLER"] = command[0]
    directory = given.get("WorkingDirectory") or own.workdir
    return Launch([*entry_point, *command], variables, directory, [], image.root, f"{user.uid}:{user.gid}")


def _program(function: Function, directory: str, layers: str | None) -> list[str]:
    command = function.options.get("http", {}).get("command")
    if command:
        return list(command)
    if function.contract == "http":
        return ["python3", "-m", "functions_framework"]
    if function.runtime.startswith("provided"):
        # Where Lambda looks, and in its order.
        own = layers is None or os.path.exists(os.path.join(directory, "bootstrap"))
        return ["/var/task/bootstrap" if own else "/opt/bootstrap"]
    if function.runtime.startswith("nodejs"):
        return ["node", "/var/runtime/bootstrap.mjs"]
    if os.path.isdir(os.path.join(directory, "awslambdaric")):
        return ["python3", "-m", "awslambdaric", function.handler]
    return ["python3", "-B", "/var/runtime/bootstrap.py"]


def _environment(function: Function) -> dict[str, str]:
    path, python_path = "/usr/local/bin:/usr/bin:/bin", "/var/task"
    if function.layers:
        path += ":/opt/bin"
        python_path += f":/opt/python/lib/{function.runtime}/site-packages:/opt/python"
    node = function.runtime.startswith("nodejs")
    if function.contract == "http":
        return _http_environment(function)
    logs = function.options.get("LoggingConfig", {})
    return {
        "HOME": "/tmp",
        "PATH": f"/var/task:{path}",
        # Without layers the loader would only look for what is not there, at each start.
        **({"LD_LIBRARY_PATH": "/var/task:/var/task/lib:/opt/lib"} if function.layers else {}),
        **({"NODE_PATH": "/opt/nodejs/node_modules:/var/task"} if node else {"PYTHONPATH": python_path, "PYTHONUNBUFFERED": "1"}),
        "TZ": ":UTC",
        **function.env,
        "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{PORT}",
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_VERSION": function.version,
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory_mb),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": logs.get("LogGroup", f"/aws/lambda/{function.name}"),
        "AWS_LAMBDA_LOG_STREAM_NAME": "local",
        "AWS_LAMBDA_LOG_FORMAT": logs.get("LogFormat", "Text"),
        "AWS_EXECUTION_ENV": f"AWS_Lambda_{function.runtime}",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "LAMBDA_TASK_ROOT": "/var/task",
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "_HANDLER": function.handler,
    }


def _http_environment(function: Function) -> dict[str, str]:
    """The contract of Cloud Run, Knative and Cloud Functions."""
    given = function.options.get("http", {})
    number = "latest" if function.version == LATEST else function.version.zfill(5)
    variables = {
        "HOME": "/tmp",
        "PATH": f"/var/task:{PATH}",
        "PYTHONPATH": "/var/task",
        "PYTHONUNBUFFERED": "1",
        **function.env,
        "PORT": str(http_instance.PORT),
        "K_SERVICE": function.name,
        "K_REVISION": f"{function.name}-{number}",
        "K_CONFIGURATION": function.name,
    }
    for variable, name in (("FUNCTION_TARGET", "target"), ("FUNCTION_SIGNATURE_TYPE", "signature")):
        if given.get(name):
            variables[variable] = given[name]
    return variables
