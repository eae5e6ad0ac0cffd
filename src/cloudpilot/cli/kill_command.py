"""`pilot kill`: ends sandboxes, and returns when nothing of them is left."""

from __future__ import annotations

from cloudpilot.cli import complain
from cloudpilot.cli.parser import Parser
from cloudpilot.engine import blocking, records
from cloudpilot.errors import InvalidArgumentException, SandboxException


def main(arguments: list[str]) -> int:
    """Runs `pilot kill`."""
    parser = Parser("kill", "End sandboxes, and everything in them.", "[--all] [SANDBOX…]")
    parser.add_argument("--all", action="store_true", help="end all that run")
    parser.add_argument("sandbox", nargs="*", metavar="SANDBOX", help="id, beginning of an id, or name")
    given = parser.parse_args(arguments)
    if not given.sandbox and not given.all:
        raise InvalidArgumentException("There is no sandbox to end", "give ids or names, or `--all`")
    status = 0
    for target in records.running() if given.all else given.sandbox:
        try:
            record = records.find(target) if isinstance(target, str) else target
            blocking.end(record)
            print(record.id)
        except SandboxException as error:
            status = complain(error.message, error.hint)
    return status
