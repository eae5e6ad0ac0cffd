"""`pilot run`: becomes the process that watches over the sandbox, so that no Python stays behind."""

from __future__ import annotations

import os
import sys

from cloudpilot.cli.parser import Parser
from cloudpilot.engine import config, paths
from cloudpilot.errors import InvalidArgumentException

# The real one would import `typing`, a good part of the start of `pilot run`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def parser() -> Parser:
    """The options of `pilot run`."""
    result = Parser("run", "Run a program in a new sandbox.", "[OPTIONS] [--] PROGRAM [ARGS…]")
    option = result.add_argument
    option(
        "--rootfs",
        metavar="DIR",
        help="directory to show as root, read-only under memory (default: the host's programs)",
    )
    option("--image", metavar="NAME", help="image to start from; its own program runs where none is given")
    option("--entrypoint", metavar="PROGRAM", help="program to run in the place of the image's; the arguments follow it")
    option("--volume", "-v", metavar="HOST:GUEST[:ro]", action="append", default=[], help="show a host directory or file")
    option("--env", "-e", metavar="K=V", action="append", default=[], help="set a variable; `K` alone copies the host's")
    option("--workdir", "-w", metavar="DIR", help="working directory inside (default: the image's, or /)")
    option(
        "--user", "-u", metavar="USER[:GROUP]", help="who it runs as inside: numbers, or an image's names (default: the image's, or 0:0)"
    )
    option("--hostname", metavar="NAME", help="host name inside")
    option("--memory", "-m", metavar="SIZE", help="guest memory, like `512m` (default: half of the host's)")
    option("--cpus", metavar="N", help="CPUs' worth of time")
    option("--pids", metavar="N", type=int, help="processes and threads (default: 4096)")
    option("--network", choices=config.NETWORKS, default="none", help="`none` is loopback only, and the default")
    option("--timeout", metavar="TIME", help="end everything after this time, with status 124")
    option("--tty", "-t", action="store_true", help="give it a terminal")
    option("--detach", "-d", action="store_true", help="print the sandbox's id and return once it runs")
    option("--name", metavar="NAME", help="name for `exec`, `kill` and `stats`")
    option("--no-patch", action="store_true", help="leave the program's own code as it is: calls cost more (for programs that check it)")
    option("--strace", action="store_true", help="print each system call on standard error")
    option("program", nargs="...", metavar="PROGRAM", help="and its arguments")
    return result


def configuration(arguments: list[str]) -> dict[str, Any]:
    """What the binary is to be told."""
    given = parser().parse_args(arguments)
    program = given.program[1:] if given.program[:1] == ["--"] else given.program
    start = _from_image(given, program) if given.image else _from_directory(given, program)
    if given.tty and given.detach:
        raise InvalidArgumentException("`--tty` and `--detach` exclude each other", "leave one out")
    env = start.pop("env")
    if given.tty:
        env["TERM"] = os.environ.get("TERM", "xterm")
    env.update(config.parse_variables(given.env))
    limits = {
        "memory_bytes": None if given.memory is None else config.parse_size(given.memory),
        "cpus": config.parse_cpus(given.cpus),
        "processes": _count("--pids", given.pids),
    }
    sandbox_id = config.new_id()
    result = {
        "id": sandbox_id,
        "name": _free_name(given.name),
        **start,
        "env": env,
        "volumes": [config.parse_volume(text) for text in given.volume],
        "limits": {key: value for key, value in limits.items() if value is not None},
        "network": given.network,
        "tty": given.tty,
        "detach": given.detach,
        "timeout_ms": None if given.timeout is None else max(1, int(config.parse_duration(given.timeout) * 1000)),
        "patch_calls": not given.no_patch,
        "strace": given.strace,
        "state_dir": paths.state_dir(sandbox_id),
    }
    return result if given.hostname is None else {**result, "hostname": given.hostname}


def _from_directory(given: Any, program: list[str]) -> dict[str, Any]:
    """What to run, where and as whom, in the host's root or one that was named."""
    if not program:
        raise InvalidArgumentException("There is no program to run", "give one after the options: `pilot run -- ls /`")
    if given.entrypoint is not None:
        raise InvalidArgumentException("`--entrypoint` needs `--image`", "name the program after the options")
    user = config.parse_user(given.user or "0:0")
    root = {"kind": "directory", "path": os.path.abspath(given.rootfs)} if given.rootfs else {"kind": "host"}
    return {"args": program, "env": config.default_env(user["uid"]), "workdir": given.workdir or "/", "user": user, "root": root}


def _from_image(given: Any, program: list[str]) -> dict[str, Any]:
    """What to run, where and as whom, as an image says it."""
    from cloudpilot.images.start import of_image
    from cloudpilot.images.store import Images

    if given.rootfs:
        raise InvalidArgumentException("`--image` and `--rootfs` exclude each other", "leave one out")
    entrypoint = None if given.entrypoint is None else [given.entrypoint] if given.entrypoint else []
    start = of_image(Images().get(given.image), program, entrypoint=entrypoint, user=given.user, workdir=given.workdir)
    return {"args": start.args, "env": start.environment, "workdir": start.workdir, "user": start.user, "root": start.root}


def _count(option: str, value: int | None) -> int | None:
    if value is not None and not 0 < value < 1 << 32:
        raise InvalidArgumentException(f"`{option} {value}` is not a possible limit", "give at least 1")
    return value


def _free_name(name: str | None) -> str | None:
    if name is not None:
        from cloudpilot.engine import records

        records.check_name(name)
    return name


def main(arguments: list[str]) -> int:
    """Runs `pilot run`; returns only if that was not possible."""
    settings = configuration(arguments)
    binary = paths.binary()
    try:
        descriptor = config.as_descriptor(settings)
    except UnicodeEncodeError:
        raise InvalidArgumentException("An argument is not valid UTF-8", "rename the file, or pass it by a pattern") from None
    os.set_inheritable(descriptor, True)
    sys.stdout.flush()
    sys.stderr.flush()
    # Python ignores it, and what is ignored stays so in a new program.
    import signal

    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    os.execv(binary, [paths.BINARY, "run", "--config-fd", str(descriptor)])
