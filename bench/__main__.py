"""`python -m bench`: prints every table."""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from bench import (
    cold,
    crowd,
    curves,
    exchange,
    fairness,
    footprint,
    idle,
    invoke,
    keep_alive,
    memory,
    peers,
    roundtrips,
    sdk,
    servers,
    start,
    transfers,
    work,
)
from bench.ground import Ground

TABLES = {
    "start": start,
    "memory": memory,
    "crowd": crowd,
    "roundtrips": roundtrips,
    "exchange": exchange,
    "idle": idle,
    "sdk": sdk,
    "work": work,
    "servers": servers,
    "keep_alive": keep_alive,
    "curves": curves,
    "invoke": invoke,
    "cold": cold,
    "fairness": fairness,
    "footprint": footprint,
    "transfers": transfers,
}


def machine() -> str:
    """Where this was measured."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    return f"{os.cpu_count()} x {model}, Linux {os.uname().release}"


def main() -> int:
    """Answers 0 if everything could be measured that can be measured here, whether or not it met its target."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measures cloudpilot beside its peers.")
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"which ones (all): {', '.join(TABLES)}")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--csv", type=Path, metavar="DIR", help="also write a CSV file a table into this directory")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.tables if name not in TABLES]
    if unknown:
        parser.error(f"no table `{unknown[0]}`; there are {', '.join(TABLES)}")
    peers.install()
    ground = Ground()
    try:
        everybody = peers.all_peers(ground)
        tables = {}
        if not arguments.json:
            print(machine(), end="\n\n", flush=True)
        for name in arguments.tables or TABLES:
            tables[name] = TABLES[name].measure(everybody)
            if arguments.csv:
                arguments.csv.mkdir(parents=True, exist_ok=True)
                (arguments.csv / f"{name}.csv").write_text(tables[name].as_csv())
            if not arguments.json:
                print(tables[name].text(), end="\n\n", flush=True)
        if arguments.json:
            print(json.dumps({"machine": machine(), "tables": {name: table.as_json() for name, table in tables.items()}}, indent=2))
    finally:
        ground.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
