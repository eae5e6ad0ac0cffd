"""Writable and read-only volumes: what programs do in them, and what the host sees of it."""

from __future__ import annotations

import os
import resource
import stat
import time
from pathlib import Path

import pytest
from harness import Pilot


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    directory = tmp_path / "volume"
    directory.mkdir()
    return directory


def shell(pilot: Pilot, volume: Path, script: str, mode: str = "") -> list[str]:
    result = pilot.run("-v", f"{volume}:/v{mode}", "--workdir", "/v", "--", "bash", "-ec", script)
    assert result.returncode == 0, result
    return result.stdout.decode().splitlines()


def test_names(pilot: Pilot, volume: Path) -> None:
    script = """
    mkdir -p d/e; echo hello > a; ln a b; mv a d/e/x; stat -c %h b; rm b
    exec 5> open; echo x >&5; rm open; echo y >&5; cat /proc/self/fd/5; exec 5>&-
    cd d/e; mv /v/d /v/dd; pwd -P; cat x; ln -s /etc/hostname s; readlink s; cat s
    rmdir /v/dd 2>/dev/null || echo not empty
    """
    lines = shell(pilot, volume, script)
    assert lines == ["2", "x", "y", "/v/dd/e", "hello", "/etc/hostname", "cloudpilot", "not empty"]
    assert sorted(os.listdir(volume)) == ["dd"]
    assert (volume / "dd/e/x").read_text() == "hello\n"
    assert os.readlink(volume / "dd/e/s") == "/etc/hostname"


def test_git_and_tar(pilot: Pilot, volume: Path) -> None:
    script = """
    git init -q r; cd r; git config user.email a@b; git config user.name n
    for i in 1 2 3; do echo $i > f$i; git add .; git commit -qm c$i; done
    git gc -q; git fsck; git clone -q . ../c; cd ..; ls c | wc -l; git -C c log --oneline | wc -l
    tar czf t.tgz r; rm -r r; tar xzf t.tgz; cat r/f2
    """
    assert shell(pilot, volume, script) == ["3", "3", "2"]


def test_mappings_and_databases(pilot: Pilot, volume: Path) -> None:
    code = """
import mmap, os, sqlite3
base = sqlite3.connect("base"); base.execute("pragma journal_mode=wal"); base.execute("create table t(a)")
for _ in range(20):
    with base: base.executemany("insert into t values(?)", [(n,) for n in range(100)])
print(base.execute("select count(*) from t").fetchone()[0], base.execute("pragma integrity_check").fetchone()[0]); base.close()
file = open("mapped", "w+b"); file.truncate(8192); shared = mmap.mmap(file.fileno(), 8192)
shared[:5] = b"hello"; file.seek(1); file.write(b"E"); file.flush(); print(shared[:5])
if os.fork() == 0: shared[4096:4099] = b"kid"; os._exit(0)
os.wait(); private = mmap.mmap(file.fileno(), 8192, flags=mmap.MAP_PRIVATE); private[:1] = b"X"
print(shared[4096:4099], private[:5], open("mapped", "rb").read(5))
"""
    (volume / "code.py").write_text(code)
    lines = shell(pilot, volume, "python3 code.py")
    assert lines == ["2000 ok", "b'hEllo'", "b'kid' b'XEllo' b'hEllo'"]
    assert (volume / "mapped").read_bytes()[4096:4099] == b"kid"


def test_modes_owners_and_what_is_refused(pilot: Pilot, volume: Path) -> None:
    script = """
    echo > f; chmod 6755 f; stat -c %a f; chown 0:0 f; chown 1:1 f 2>/dev/null || echo refused
    mkfifo -m 640 p; echo through > p & cat p; mknod d c 1 3 2>/dev/null || echo refused; touch -d 2001-01-01 f; stat -c %Y f
    """
    assert shell(pilot, volume, script) == ["755", "refused", "through", "refused", "978307200"]
    status = (volume / "f").stat()
    assert status.st_mode & 0o7000 == 0
    pipe = (volume / "p").lstat()
    assert (stat.S_ISFIFO(pipe.st_mode), stat.S_IMODE(pipe.st_mode)) == (True, 0o640)
    assert int(status.st_mtime) == 978307200


def test_read_only(pilot: Pilot, volume: Path) -> None:
    (volume / "f").write_text("kept")
    script = (
        "for c in 'rm f' 'touch n' 'mkdir d' 'mv f g' 'ln f h' 'truncate -s 0 f' 'chmod 0 f'; do $c 2>/dev/null && echo $c; done; cat f"
    )
    assert shell(pilot, volume, script, ":ro") == ["kept"]
    assert os.listdir(volume) == ["f"]


def test_a_single_file(pilot: Pilot, volume: Path) -> None:
    file = volume / "file"
    file.write_text("one\n")
    result = pilot.run("-v", f"{file}:/one", "-v", f"{file}:/two:ro", "--", "bash", "-c", "echo two >> /one; cat /two; echo three > /two")
    assert result.stdout == b"one\ntwo\n"
    assert b"Read-only file system" in result.stderr
    assert file.read_text() == "one\ntwo\n"


def test_changes_of_the_host_are_seen(pilot: Pilot, volume: Path) -> None:
    (volume / "f").write_text("before")
    script = "cat f; mv f g; echo > ready; while [ ! -e f ]; do sleep 0.02; done; cat f; cat g"
    (volume / "script").write_text(script)
    pid = os.fork()
    if pid == 0:
        while not (volume / "ready").exists():
            time.sleep(0.01)
        (volume / "new").write_text("after")
        (volume / "new").rename(volume / "f")
        os._exit(0)
    try:
        result = pilot.run("-v", f"{volume}:/v", "--workdir", "/v", "--", "bash", "script")
    finally:
        os.waitpid(pid, 0)
    assert result.stdout == b"beforeafterbefore"


def test_a_tree_larger_than_the_descriptors(pilot: Pilot, volume: Path) -> None:
    """As many files opened as the host allows leave enough for the sandbox itself."""
    for number in range(600):
        (volume / str(number)).write_text("x")
    code = """
import os
files = []
try:
    for number in range(600): files.append(os.open(f"/v/{number}", os.O_RDONLY)); os.read(files[-1], 1)
except OSError as error: print(error.errno)
print(len(os.listdir("/usr/share/doc")) > 0, sum(len(found) for _, found, _ in os.walk("/usr/share")) > 100)
"""
    few = {"preexec_fn": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))}
    result = pilot.run("-v", f"{volume}:/v:ro", "--", "/usr/bin/python3", "-c", code, **few)
    assert result.stdout == b"23\nTrue True\n", result
