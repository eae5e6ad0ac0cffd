"""Pieces of work that people do, by the host's programs: run by every peer in turns, timed by the shell that runs them, in memory."""

from __future__ import annotations

import os
import shutil
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench.report import NATIVE, RUNSC, Cell, Row, Target

if TYPE_CHECKING:
    from bench.peers import Peer

ROUNDS = 3
"""Of each peer but `runsc`, whose single round takes as long as all the others' together."""
PATIENCE = 120.0
"""Seconds that one round may take."""
TIMES_NATIVE = 1.5
"""What our time is to be at most, by the native one."""
MEDIAN_TIMES_NATIVE = 1.25
"""What the median of these quotients is to be at most."""
TIMES_RUNSC = 2
"""How much quicker than `runsc` each is to be."""


@dataclass(frozen=True)
class Job:
    """A piece of work as shell commands: which program it needs, what is done before the clock runs, the work, and what is done after."""

    program: str
    prepare: str
    work: str
    after: str = ":"
    rate: int = 0
    """Where the work runs for a fixed time and prints a rate by itself: for how many requests the time is given."""

    def script(self) -> str:
        """Does the work in an empty directory in memory; prints the nanoseconds that it took."""
        clock = "date +%s%N"
        if self.rate:
            timed = f'r=$({self.work}); b=$(awk -v r="$r" "BEGIN {{ printf \\"%d\\", {self.rate} * 1e9 / r }}")'
            return f"cd $(mktemp -d -p /dev/shm); {{ {self.prepare or ':'}; }} >&2; {timed}; {{ {self.after}; }} >&2; echo $b; rm -rf $PWD"
        timed = f"a=$({clock}); {{ {self.work}\n}} >&2; b=$({clock})"
        end = f"{{ {self.after}; }} >&2; echo $((b-a)); rm -rf $PWD"
        return f"set -e; cd $(mktemp -d -p /dev/shm); {{ {self.prepare or ':'}; }} >&2; {timed}; {end}"


def milliseconds(peer: Peer, job: Job) -> float:
    """Runs one round."""
    launch = peer.launch_shell(job.script())
    read, write = os.pipe()
    errors = os.memfd_create("errors")
    try:
        running = launch.start(write, errors)
    finally:
        os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read()
    status = running.wait(PATIENCE)
    said = os.pread(errors, 1 << 16, 0).decode(errors="replace").strip().splitlines()
    os.close(errors)
    if status != 0 or not answer.strip().isdigit():
        running.stop()
        raise RuntimeError((said or [f"exit status {status}"])[-1][:80])
    return int(answer) / 1e6


def measure_job(peers: list[Peer], job: Job) -> dict[str, Cell]:
    """Rounds in which the peers take turns; medians."""
    times: dict[str, list[float]] = {}
    reasons = {peer.name: peer.reason for peer in peers if peer.reason is not None}
    for number in range(ROUNDS):
        for peer in peers:
            if peer.name in reasons or (peer.name == RUNSC and number):
                continue
            try:
                times.setdefault(peer.name, []).append(milliseconds(peer, job))
            except RuntimeError as error:
                reasons[peer.name] = f"failed ({error})"
    return {
        peer.name: Cell(reason=reasons[peer.name]) if peer.name in reasons else Cell(statistics.median(times[peer.name])) for peer in peers
    }


def rows(peers: list[Peer], jobs: dict[str, Job]) -> tuple[list[Row], list[str]]:
    """A row a job; and what was left out or stands out."""
    result: list[Row] = []
    notes: list[str] = []
    for label, job in jobs.items():
        if shutil.which(job.program) is None:
            notes.append(f"left out, as `{job.program}` is not installed: {label}")
            continue
        result.append(Row(label, "ms", measure_job(peers, job), Target(peer=NATIVE, times=1 / TIMES_NATIVE)))
    quotients = [quotient for row in result if (quotient := row.quotient(NATIVE)) is not None]
    if quotients:
        median = statistics.median(quotients)
        verdict = "met" if median <= MEDIAN_TIMES_NATIVE else "MISSED"
        notes.append(f"median of the quotients to native: {median:.2f} (at most {MEDIAN_TIMES_NATIVE}: {verdict})")
    slow = [row.label for row in result if (quotient := row.quotient(RUNSC)) is not None and quotient > 1 / TIMES_RUNSC]
    notes.append(f"less than {TIMES_RUNSC} times as quick as {RUNSC}: {', '.join(slow) or 'none'}")
    return result, notes
