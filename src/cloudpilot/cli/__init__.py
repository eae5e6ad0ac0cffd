"""The command line `pilot`: finds the command and imports no more than that.

Data goes to standard output, everything else to standard error. A failure of ours is one line, with a `hint:` line where there is
something to do, and has status 125.
"""

from __future__ import annotations

import os
import sys

STATUS_OURS = 125

COMMANDS = {
    "run": "Run a program in a new sandbox",
    "exec": "Run a program in a sandbox that runs",
    "ps": "List sandboxes that run",
    "kill": "End sandboxes",
    "stats": "Show what sandboxes use",
    "image": "Import, list and remove images",
    "function": "Deploy, call and remove functions of a service",
    "serve": "Serve sandboxes over HTTP",
    "doctor": "Check what this host can do",
    "completion": "Print the completion script of a shell",
}

HELP = """\
Runs untrusted programs behind a user-space kernel of their own.

Usage: pilot COMMAND [OPTIONS] …
       pilot run [OPTIONS] [--] PROGRAM [ARGS…]

Commands:
{commands}

`pilot COMMAND --help` tells more. `pilot --version` prints the version.
"""


def complain(message: str, hint: str | None = None) -> int:
    """Says what went wrong and what to do; answers the status for that."""
    text = f"error: {message}\n" + (f"hint: {hint}\n" if hint else "")
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        pass  # Nobody listens.
    return STATUS_OURS


def main() -> int:
    """Runs the command line; answers the exit status."""
    arguments = sys.argv[1:]
    name = arguments[0] if arguments else "--help"
    try:
        if name in COMMANDS:
            return _command(name, arguments[1:])
        if name in ("--version", "-V"):
            from cloudpilot import __version__

            print(f"pilot {__version__}")
        elif name in ("--help", "-h", "help"):
            print(HELP.format(commands="\n".join(f"  {key:<12}{text}" for key, text in COMMANDS.items())), end="")
        else:
            kind = "option" if name.startswith("-") else "command"
            return complain(f"There is no {kind} `{name}`", "`pilot --help` lists the commands")
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has had enough; Python's own last flush would complain of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    return 0


def _command(name: str, arguments: list[str]) -> int:
    from cloudpilot.errors import SandboxException

    module = __import__(f"cloudpilot.cli.{name}_command").cli
    run = getattr(module, f"{name}_command").main
    try:
        status = run(arguments)
        sys.stdout.flush()
        return int(status)
    except SandboxException as error:
        return complain(error.message, error.hint)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        return complain(str(error.strerror or error) + (f": `{error.filename}`" if error.filename else ""))
