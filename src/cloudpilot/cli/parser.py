"""Argument parsing as all commands have it: failures are one line and have status 125."""

from __future__ import annotations

import argparse
import os

from cloudpilot.cli import complain

# The real one would import `typing`, a good part of the start of `pilot run`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def _formatter(prog: str) -> argparse.HelpFormatter:
    """Lays help out for the terminal; argparse's own way to ask for its size imports half a dozen modules."""
    try:
        width = os.get_terminal_size().columns
    except OSError:
        width = 80
    return argparse.HelpFormatter(prog, width=width - 2)


class Parser(argparse.ArgumentParser):
    """An argument parser that complains as the rest of `pilot` does."""

    def __init__(self, command: str, description: str, usage: str) -> None:
        super().__init__(
            prog=f"pilot {command}",
            description=description,
            usage=f"pilot {command} {usage}",
            allow_abbrev=False,
            formatter_class=_formatter,
        )

    def error(self, message: str) -> NoReturn:
        """Ends the program with what was wrong."""
        message = message.replace("unrecognized arguments: ", "Unknown option: ")
        self.exit(complain(message[:1].upper() + message[1:], f"`{self.prog} --help` lists the options"))
