"""Table: work that people do, in a sandbox with the host's root beside the same work outside, both in memory."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
from typing import TYPE_CHECKING

from bench.peers import PATIENCE, our_binary
from bench.report import NATIVE, OURS, Cell, Row, Table, Target

if TYPE_CHECKING:
    from pathlib import Path

    from bench.peers import Peer

ROUNDS = 5
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "HOME": "/tmp"}
"""Of both sides, so that both run the same programs."""
TIMES_NATIVE = 1.5
"""What our time is to be at most, by the native one."""

IMPORTS = "json,re,subprocess,threading,socket,ssl,sqlite3,hashlib,random,datetime,collections,logging,argparse,pathlib,tempfile,shutil"
WORK: dict[str, tuple[str, str, str]] = {
    "python3, 16 imports, 5 times": ("python3", "", f"for i in 1 2 3 4 5; do python3 -c 'import {IMPORTS}'; done"),
    "compile and link 20 C files": (
        "gcc",
        (
            'for i in $(seq 20); do printf "#include <stdio.h>\\nint f%d(int x){return printf(\\"%%d\\",x)+%d;}\\n" $i $i > f$i.c; done;'
            ' echo "int main(void){return 0;}" > main.c'
        ),
        "for f in *.c; do gcc -O1 -c $f; done; gcc *.o -o program",
    ),
    "git: add, commit, status of 1,000 files": (
        "git",
        "git init -q .; for d in $(seq 20); do mkdir $d; for f in $(seq 50); do echo $d-$f > $d/$f; done; done",
        "git add -A; git -c user.name=a -c user.email=b commit -qm x; git status --short",
    ),
    "tar of 1,000 files, twice": (
        "tar",
        "for d in $(seq 20); do mkdir $d; for f in $(seq 50); do head -c 4096 /dev/zero > $d/$f; done; done",
        "tar cf /dev/null .; tar cf a.tar --exclude a.tar .; mkdir out; tar xf a.tar -C out",
    ),
    "sqlite3: 1,000 transactions": (
        "python3",
        "",
        (
            "python3 -c 'import sqlite3\n"
            'c = sqlite3.connect("a.db"); c.execute("create table t(x)")\n'
            'for i in range(1000): c.execute("insert into t values(?)", (i,)); c.commit()\''
        ),
    ),
    "200 times /bin/true from a shell": ("bash", "", "for i in $(seq 200); do /bin/true; done"),
    "redis: 20,000 SETs by redis-benchmark": (
        "redis-benchmark",
        "redis-server --port 0 --unixsocket $PWD/s --save '' --daemonize yes > /dev/null; while [ ! -S s ]; do sleep 0.05; done",
        "redis-benchmark -s $PWD/s -t set -n 20000 -q > /dev/null; redis-cli -s $PWD/s shutdown nosave",
    ),
}
"""Which program a piece of work needs, what is done before the clock runs, and the work."""


def script(prepare: str, work: str) -> str:
    """Does the work in an empty directory in memory; prints the nanoseconds that it took."""
    clock = "date +%s%N"
    timed = f"a=$({clock}); {{ {work}\n}} >&2; b=$({clock}); echo $((b-a))"
    return f"cd $(mktemp -d -p /dev/shm); {{ {prepare or ':'}; }} >&2; {timed}; rm -rf $PWD"


def milliseconds(argv: list[str], descriptors: tuple[int, ...] = ()) -> float:
    """Runs one round."""
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    done = subprocess.run(argv, **streams, env={**os.environ, **ENVIRONMENT}, timeout=PATIENCE, check=True, pass_fds=descriptors)  # type: ignore[call-overload]
    return int(done.stdout) / 1e6


def inside(text: str, state: Path, number: int) -> float:
    """The same in a sandbox."""
    identity = f"bench-work-{os.getpid()}-{number}"
    config = {
        "id": identity,
        "args": ["bash", "-c", text],
        "env": ENVIRONMENT,
        "root": {"kind": "host"},
        "state_dir": str(state / identity),
    }
    descriptor = os.memfd_create("config", 0)
    try:
        os.write(descriptor, json.dumps(config).encode())
        os.lseek(descriptor, 0, os.SEEK_SET)
        return milliseconds([str(our_binary()), "run", "--config-fd", str(descriptor)], (descriptor,))
    finally:
        os.close(descriptor)


def measure(peers: list[Peer]) -> Table:
    """Rounds in which native and sandbox take turns."""
    ours = next(peer for peer in peers if peer.name == OURS)
    rows, left_out = [], []
    for label, (program, prepare, work) in WORK.items():
        if shutil.which(program) is None:
            left_out.append(f"left out, as `{program}` is not installed: {label}")
            continue
        text = script(prepare, work)
        times: dict[str, list[float]] = {NATIVE: [], OURS: []}
        for number in range(ROUNDS):
            times[NATIVE].append(milliseconds(["bash", "-c", text]))
            if ours.reason is None:
                times[OURS].append(inside(text, ours.ground.path / "state", len(rows) * ROUNDS + number))
        native = statistics.median(times[NATIVE])
        mine = Cell(statistics.median(times[OURS])) if ours.reason is None else Cell(reason=ours.reason)
        rows.append(Row(label, "ms", {NATIVE: Cell(native), OURS: mine}, Target(peer=NATIVE, times=1 / TIMES_NATIVE)))
    return Table(f"Work, medians of {ROUNDS} rounds, in memory on both sides", rows, left_out)
