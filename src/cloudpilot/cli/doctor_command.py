"""`pilot doctor`: what this host can and cannot do, with reasons and remedies."""

from __future__ import annotations

import os
import sys

from cloudpilot.cli import table
from cloudpilot.cli.parser import Parser
from cloudpilot.engine import host

_COLOURS = {"ok": "32", "no": "33", "FAIL": "31"}


def main(arguments: list[str]) -> int:
    """Runs `pilot doctor`; status 1 when the default would not run."""
    parser = Parser("doctor", "Check by trying what this host can do. Status 1 if `pilot run` would not work.", "[--json]")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args(arguments)
    found = host.checks()
    # What a sandbox needs is what it says itself; the other lines are the likely reasons.
    runs = all(check.ok for check in found if check.name == "sandbox")
    if given.json:
        table.print_json({"runs": runs, "checks": [check.as_json() for check in found]})
        return 0 if runs else 1
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for check in found:
        word = "ok" if check.ok else "FAIL" if check.needed else "no"
        shown = f"\033[{_COLOURS[word]}m{word:<4}\033[0m" if coloured else f"{word:<4}"
        print(f"{shown} {check.name:<16} {check.reason}")
        if check.remedy:
            print(f"     {'':<16} hint: {check.remedy}")
    return 0 if runs else 1
