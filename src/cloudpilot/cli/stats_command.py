"""`pilot stats`: what sandboxes use."""

from __future__ import annotations

import os
from typing import Any

from cloudpilot.cli import complain, table
from cloudpilot.cli.parser import Parser
from cloudpilot.engine import blocking, records
from cloudpilot.errors import SandboxException


def family(pid: int) -> list[int]:
    """A process and all its descendants on the host."""
    result = [pid]
    for each in result:
        try:
            for thread in os.listdir(f"/proc/{each}/task"):
                with open(f"/proc/{each}/task/{thread}/children", encoding="ascii") as file:
                    result.extend(int(child) for child in file.read().split())
        except OSError:
            continue  # It has ended meanwhile.
    return result


def on_host(supervisor_pid: int) -> dict[str, float | None]:
    """What a sandbox's processes use on the host: memory as their share of it, processor time in seconds.

    Only root may look into jailed processes; for others the memory is unknown.
    """
    memory: int | None = 0
    ticks, count = 0, 0
    for pid in family(supervisor_pid):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                fields = file.read().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
            count += 1
            with open(f"/proc/{pid}/smaps_rollup", encoding="ascii", errors="replace") as file:
                share = sum(int(line.split()[1]) << 10 for line in file if line.startswith("Pss:"))
            memory = None if memory is None else memory + share
        except PermissionError:
            memory = None
        except OSError:
            continue  # It has ended meanwhile.
    return {"memory_bytes": memory, "cpu_seconds": ticks / os.sysconf("SC_CLK_TCK"), "processes": count}


def figures(record: records.Record) -> dict[str, Any]:
    """All figures of a sandbox."""
    inside = blocking.Connection(record.id).call("stats", {})
    return {"id": record.id, "name": record.name, "host": on_host(record.supervisor_pid), "guest": inside}


def main(arguments: list[str]) -> int:
    """Runs `pilot stats`."""
    parser = Parser("stats", "Show what sandboxes use.", "[--json] [SANDBOX…]")
    parser.add_argument("--json", action="store_true", help="print JSON, with all figures")
    parser.add_argument("sandbox", nargs="*", metavar="SANDBOX", help="id, beginning of an id, or name (default: all)")
    given = parser.parse_args(arguments)
    found = [records.find(word) for word in given.sandbox] if given.sandbox else records.running()
    status, results = 0, []
    for record in found:
        try:
            results.append(figures(record))
        except SandboxException as error:
            status = complain(error.message, error.hint)
    if given.json:
        table.print_json(results)
    else:
        heads = ("ID", "NAME", "HOST MEMORY", "HOST CPU", "GUEST MEMORY", "PROCESSES", "READ", "WRITTEN", "RECEIVED", "SENT")
        table.print_table(heads, [_row(result) for result in results])
    return status


def _row(result: dict[str, Any]) -> tuple[str, ...]:
    host, guest = result["host"], result["guest"]
    return (
        result["id"],
        table.shown(result["name"] or "-"),
        _size(host["memory_bytes"]),
        f"{host['cpu_seconds']:.2f} s",
        _size(guest.get("memory_bytes")),
        str(guest.get("processes", "-")),
        *(_size(guest.get("storage", {}).get(name)) for name in ("read_bytes", "written_bytes")),
        *(_size(guest.get("network", {}).get(name)) for name in ("received_bytes", "sent_bytes")),
    )


def _size(count: float | None) -> str:
    return "-" if count is None else table.size(count)
