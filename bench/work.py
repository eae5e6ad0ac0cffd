"""Table: programs that people run, beside the same outside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bench import jobs
from bench.jobs import Job
from bench.report import Table

if TYPE_CHECKING:
    from bench.peers import Peer

IMPORTS = (
    "json,re,subprocess,threading,socket,ssl,sqlite3,hashlib,random,datetime,collections,logging,argparse,pathlib,tempfile,shutil,"
    "asyncio,http.client,urllib.request,email.message"
)


def tree(directories: int, files: int, size: int) -> str:
    """Makes a tree of small files by one process."""
    code = (
        "import os\n"
        f"for d in range({directories}):\n"
        "    os.mkdir(str(d))\n"
        f"    for f in range({files}):\n"
        f'        open("%d/%d" % (d, f), "w").write(("%d-%d\\n" % (d, f)).ljust({size}, "x"))'
    )
    return f"python3 -c '{code}'"


IDENTITY = "git config user.name a; git config user.email b"
REPOSITORY = f"git init -q .; {IDENTITY}; {tree(50, 100, 40)}"
SOURCES = (
    'for i in $(seq 20); do printf "#include <stdio.h>\\nint f%d(int x){return printf(\\"%%d\\",x)+%d;}\\n" $i $i > f$i.c; done;'
    ' echo "int main(void){return 0;}" > main.c'
)
PACKAGES = (
    "mkdir project parts; for p in $(seq 10); do mkdir parts/part$p; cd parts/part$p; "
    'echo "{\\"name\\":\\"part$p\\",\\"version\\":\\"1.0.0\\"}" > package.json; mkdir lib; '
    'for f in $(seq 40); do echo "module.exports = $f;" > lib/$f.js; done; cd ../..; done; cd project; '
    'echo "{\\"name\\":\\"project\\",\\"version\\":\\"1.0.0\\"}" > package.json'
)
JOBS = {
    "python3 with 20 imports, 5 times": Job("python3", "", f"for i in 1 2 3 4 5; do python3 -c 'import {IMPORTS}'; done"),
    "git: add and commit 5,000 files": Job("git", REPOSITORY, "git add -A; git commit -qm x"),
    "git: status of 5,000 files, 5 times": Job(
        "git", f"{REPOSITORY}; git add -A; git commit -qm x", "for i in 1 2 3 4 5; do git status --short; done"
    ),
    "git: clone of 5,000 files": Job(
        "git", f"mkdir from; cd from; {REPOSITORY}; git add -A; git commit -qm x; cd ..", "git clone -q --no-hardlinks from to"
    ),
    "compile and link 20 C files": Job("gcc", SOURCES, "for f in *.c; do gcc -O1 -c $f; done; gcc *.o -o program"),
    "npm: install of 10 packages from a folder": Job(
        "npm", PACKAGES, "npm install --offline --no-audit --no-fund --install-links --silent ../parts/*"
    ),
    "tar: pack and unpack 10,000 files": Job(
        "tar", f"mkdir from to; cd from; {tree(100, 100, 500)}; cd ..", "tar cf a.tar -C from .; tar xf a.tar -C to"
    ),
    "200 times /bin/true from a shell": Job("bash", "", "for i in $(seq 200); do /bin/true; done"),
}


def measure(peers: list[Peer]) -> Table:
    """Rounds in which everybody takes turns."""
    rows, notes = jobs.rows(peers, JOBS)
    return Table(f"Programs, medians of {jobs.ROUNDS} rounds, in memory everywhere", rows, notes)
