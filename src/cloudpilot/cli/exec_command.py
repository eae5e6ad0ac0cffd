"""`pilot exec`: runs a program in a sandbox that runs already, with this process's standard streams."""

from __future__ import annotations

import os
import select
import signal
from typing import Any

from cloudpilot.cli.parser import Parser
from cloudpilot.engine import blocking, config, records
from cloudpilot.errors import InvalidArgumentException, NotFoundException, PermissionDeniedException, SandboxException

STATUS_NOT_EXECUTABLE = 126
STATUS_NOT_FOUND = 127
_HANDED_ON = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGWINCH)


def main(arguments: list[str]) -> int:
    """Runs `pilot exec`."""
    parser = Parser("exec", "Run a program in a sandbox that runs.", "[OPTIONS] SANDBOX [--] PROGRAM [ARGS…]")
    option = parser.add_argument
    option("--env", "-e", metavar="K=V", action="append", default=[], help="set a variable; `K` alone copies the host's")
    option("--workdir", "-w", metavar="DIR", default="/", help="working directory inside")
    option("--user", "-u", metavar="UID[:GID]", default="0:0", help="who it runs as inside (default: 0:0)")
    option("--tty", "-t", action="store_true", help="give it a terminal")
    option("sandbox", metavar="SANDBOX", help="id, beginning of an id, or name")
    option("program", nargs="...", metavar="PROGRAM", help="and its arguments")
    given = parser.parse_args(arguments)
    program = given.program[1:] if given.program[:1] == ["--"] else given.program
    if not program:
        raise InvalidArgumentException("There is no program to run", "give one after the sandbox: `pilot exec NAME -- ls /`")
    user = config.parse_user(given.user)
    env = config.default_env(user["uid"])
    if given.tty:
        env["TERM"] = os.environ.get("TERM", "xterm")
    env.update(config.parse_variables(given.env))
    params: dict[str, Any] = {"args": program, "env": env, "workdir": given.workdir, "user": user}
    connection = blocking.Connection(records.find(given.sandbox).id)
    if not given.tty:
        return _run(connection, params, [0, 1, 2])
    size = _terminal_size()
    params["tty"] = {"rows": size.lines, "columns": size.columns}
    restore = _raw_mode()
    try:
        return _run(connection, params, [0, 1])
    finally:
        restore()


def _run(connection: blocking.Connection, params: dict[str, Any], streams: list[int]) -> int:
    # Signals are taken from a pipe, in order with everything else that is waited for.
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for each in _HANDED_ON:
        signal.signal(each, lambda *_: None)
    try:
        pid = connection.call("exec", params, streams)["pid"]
    except NotFoundException as error:
        return _refused(error, STATUS_NOT_FOUND)
    except PermissionDeniedException as error:
        return _refused(error, STATUS_NOT_EXECUTABLE)
    except SandboxException as error:
        return _refused(error, STATUS_NOT_EXECUTABLE if error.code in ("not_executable", "is_a_directory") else 125)
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    poll.register(reader, select.POLLIN)
    while True:
        ready = [descriptor for descriptor, _ in poll.poll()]
        if reader in ready:
            for number in os.read(reader, 64):
                _hand_on(connection, pid, number)
        if connection.fileno() in ready:
            message = connection.receive(blocking.REQUEST_TIMEOUT)
            if message.get("event") == "exited" and message.get("pid") == pid:
                code, ended_by = message.get("exit_code"), message.get("signal")
                return int(code) if code is not None else 128 + int(ended_by or 0)


def _refused(error: SandboxException, status: int) -> int:
    from cloudpilot.cli import complain

    complain(error.message, error.hint)
    return status


def _hand_on(connection: blocking.Connection, pid: int, number: int) -> None:
    if number == signal.SIGWINCH:
        size = _terminal_size()
        connection.send("resize", {"pid": pid, "rows": size.lines, "columns": size.columns})
    else:
        connection.send("signal", {"pid": -pid, "signal": number})


def _terminal_size() -> os.terminal_size:
    for descriptor in (1, 0):
        try:
            size = os.get_terminal_size(descriptor)
        except OSError:
            continue
        if size.lines and size.columns:
            return size
    return os.terminal_size((80, 24))


def _raw_mode() -> Any:
    import termios
    import tty

    try:
        before = termios.tcgetattr(0)
        tty.setraw(0)
    except termios.error:
        return lambda: None
    return lambda: termios.tcsetattr(0, termios.TCSADRAIN, before)
