"""Argument parsing as all commands have it: failures are one line and have status 125."""

from __future__ import annotations

import argparse
from typing import NoReturn

from cloudpilot.cli import complain


class Parser(argparse.ArgumentParser):
    """An argument parser that complains as the rest of `pilot` does."""

    def __init__(self, command: str, description: str, usage: str) -> None:
        super().__init__(prog=f"pilot {command}", description=description, usage=f"pilot {command} {usage}", allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Ends the program with what was wrong."""
        message = message.replace("unrecognized arguments: ", "Unknown option: ")
        self.exit(complain(message[:1].upper() + message[1:], f"`{self.prog} --help` lists the options"))
