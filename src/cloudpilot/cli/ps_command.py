"""`pilot ps`: lists sandboxes that run."""

from __future__ import annotations

from cloudpilot.cli import table
from cloudpilot.cli.parser import Parser
from cloudpilot.engine import records


def main(arguments: list[str]) -> int:
    """Runs `pilot ps`."""
    parser = Parser("ps", "List sandboxes that run.", "[--json] [--quiet]")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quiet", "-q", action="store_true", help="print ids only")
    given = parser.parse_args(arguments)
    found = records.running()
    if given.json:
        table.print_json(
            [
                {
                    "id": record.id,
                    "name": record.name,
                    "args": record.args,
                    "created": record.created,
                    "root": record.root,
                    "network": record.network,
                    "supervisor_pid": record.supervisor_pid,
                    "kernel_pid": record.kernel_pid,
                }
                for record in found
            ]
        )
    elif given.quiet:
        for record in found:
            print(record.id)
    else:
        rows = [
            (
                record.id,
                table.shown(record.name or "-"),
                table.age(record.created),
                record.network,
                str(record.kernel_pid),
                table.shown(" ".join(record.args or ["-"])),
            )
            for record in found
        ]
        table.print_table(("ID", "NAME", "AGE", "NETWORK", "PID", "PROGRAM"), rows)
    return 0
