"""Builds the fuzzing targets and runs them, two at a time; says how to reproduce what they find.

    python3 fuzz/run.py --seconds 60             all targets, each for a minute
    python3 fuzz/run.py --seconds 600 calls      one
    python3 fuzz/run.py --reproduce FILE calls   a find again
    python3 fuzz/run.py --seconds 600 --keep     adds to the corpora what they need to cover as much
    python3 fuzz/run.py --minimize               keeps of the corpora what adds coverage

Stable Rust is enough: the coverage instrumentation is an ordinary pass of the code generator.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGETS = ["calls", "paths", "messages", "context", "programs", "control", "config"]
FLAGS = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
]
TRIPLE = "x86_64-unknown-linux-gnu"
# Longer inputs than this have no room in a program of calls.
LONGEST = {"calls": 2048, "paths": 2048, "messages": 2048, "context": 2048, "programs": 16384, "control": 8192, "config": 4096}
# A single input that takes longer hangs; what a target itself waits for is shorter.
HANG_SECONDS = 60
MOST_MEMORY_MB = 2048
# What `timeout(1)` answers: a target that its own watch did not end.
HUNG = 124
# How often a find is tried again before it counts as none: threads race, so once is not enough.
TRIES = 5
# How many targets at once: each has threads of its own, and stubs.
AT_ONCE = 2


def build() -> Path:
    """Builds all targets; answers where they are."""
    environment = {**os.environ, "RUSTFLAGS": " ".join(FLAGS)}
    command = ["cargo", "build", "--quiet", "--release", "--locked", "--target", TRIPLE, "--target-dir", HERE / "target"]
    if subprocess.run(command, cwd=HERE, env=environment, check=False).returncode != 0:
        sys.exit("error: The fuzzing targets did not compile; cargo has said why above")
    return HERE / "target" / TRIPLE / "release"


def options(target: str) -> list[str]:
    """What the engine is told."""
    artifacts = HERE / "artifacts" / target
    artifacts.mkdir(parents=True, exist_ok=True)
    return [
        f"-artifact_prefix={artifacts}/",
        f"-max_len={LONGEST[target]}",
        f"-timeout={HANG_SECONDS}",
        f"-rss_limit_mb={MOST_MEMORY_MB}",
        "-detect_leaks=0",
        "-print_final_stats=1",
    ]


def watch(command: list[str], patience: float) -> tuple[int, str]:
    """Runs a target to its end; answers its status and what it said."""
    # A file rather than a pipe: stubs that a crashed target leaves behind would hold a pipe open, and us with it.
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            status = process.wait(patience)
        except subprocess.TimeoutExpired:
            status = HUNG
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
        log.seek(0)
        return status, log.read().decode(errors="replace")


def run(binaries: Path, target: str, seconds: int, seed: int, keep: bool) -> bool:
    """Runs one target; answers whether it found nothing."""
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{target}-") as found:
        corpus = HERE / "corpus" / target
        corpora = [found, *([str(corpus)] if corpus.is_dir() else [])]
        command = [str(binaries / target), *options(target), f"-max_total_time={seconds}", f"-seed={seed}", *corpora]
        status, said = watch(command, seconds + 600)
        if keep:
            corpus.mkdir(exist_ok=True)
            watch([str(binaries / target), *options(target), "-set_cover_merge=1", str(corpus), found], 600)
    figures = [line.rsplit(":", 1)[1].strip() for line in said.splitlines() if line.startswith("stat::number_of_executed_units")]
    covered = [line for line in said.splitlines() if " cov: " in line][-1:]
    points = covered[0].split(" cov: ")[1].split()[0] if covered else "?"
    print(f"{target}: seed {seed}, {figures[0] if figures else '?'} inputs, {points} points covered", flush=True)
    if status == 0:
        return True
    print(said[-4000:], file=sys.stderr)
    artifact = next((line.split()[-1] for line in said.splitlines() if "Test unit written to" in line), None)
    if not comes_again(binaries, target, artifact):
        print(
            f"warning: `{target}` stopped with status {status}, which did not come again in {TRIES} tries: {artifact or 'no input'}",
            file=sys.stderr,
        )
        return True
    print(f"error: `{target}` found something", file=sys.stderr)
    if artifact:
        print(f"hint: again by: python3 fuzz/run.py --reproduce {artifact} {target}", file=sys.stderr, flush=True)
    return False


def comes_again(binaries: Path, target: str, artifact: str | None) -> bool:
    """Whether a find is one of the project's: a busy machine makes a slow input look like a hang, and takes memory that is not its own."""
    if artifact is None:
        return True
    return any(watch([str(binaries / target), *options(target), artifact], 2 * HANG_SECONDS)[0] != 0 for _ in range(TRIES))


def minimize(binaries: Path, target: str) -> None:
    """Keeps of a corpus, and of what was found besides, the inputs that add coverage."""
    corpus = HERE / "corpus" / target
    with tempfile.TemporaryDirectory(prefix=f"fuzz-{target}-") as kept:
        subprocess.run([str(binaries / target), *options(target), "-merge=1", kept, str(corpus)], check=True, capture_output=True)
        shutil.rmtree(corpus)
        shutil.copytree(kept, corpus)


def main() -> int:
    """Runs the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(3), "little") + 1)
    parser.add_argument("--reproduce", metavar="FILE")
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--minimize", action="store_true")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"which ones (all): {', '.join(TARGETS)}")
    given = parser.parse_args()
    unknown = [name for name in given.targets if name not in TARGETS]
    if unknown:
        parser.error(f"no target `{unknown[0]}`; there are {', '.join(TARGETS)}")
    if given.reproduce and len(given.targets) != 1:
        parser.error("`--reproduce` takes one target")
    given.targets = given.targets or TARGETS
    binaries = build()
    if given.reproduce:
        return subprocess.run([str(binaries / given.targets[0]), *options(given.targets[0]), given.reproduce], check=False).returncode
    if given.minimize:
        for target in given.targets:
            minimize(binaries, target)
        return 0
    with ThreadPoolExecutor(AT_ONCE) as pool:
        clean = list(pool.map(lambda target: run(binaries, target, given.seconds, given.seed, given.keep), given.targets))
    return 0 if all(clean) else 1


if __name__ == "__main__":
    sys.exit(main())
