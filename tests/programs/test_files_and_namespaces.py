"""Programs that live on files, mounts and memory, unmodified, with the results that they have on the host."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import Pilot

pytestmark = [pytest.mark.programs, pytest.mark.timeout(2700)]

# Debian's own regression suite of its own Python.
SUITE = Path("/usr/lib/python3.11/test")


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips a test where the host lacks a program."""
    missing = [program for program in programs if not shutil.which(program)]
    return pytest.mark.skipif(bool(missing), reason=f"the host has no {' '.join(missing)}")


def outcome(output: str) -> tuple[str, str]:
    """How a run of Python's suite ended: the verdict, and the names of tests that failed."""
    verdict = re.search(r"^Result: (.*)$", output, re.MULTILINE) or re.search(r"^Tests result: (.*)$", output, re.MULTILINE)
    failed = sorted(set(re.findall(r"^(?:FAIL|ERROR): (\S+)", output, re.MULTILINE)))
    return (verdict[1] if verdict else output[-500:], " ".join(failed))


@pytest.mark.skipif(not (SUITE / "test_os.py").exists(), reason="the host has no libpython3.11-testsuite")
@pytest.mark.parametrize("module", ["os", "io", "fileio", "mmap", "tempfile", "shutil", "posix", "sqlite3", "time"])
def test_pythons_suite_says_the_same(pilot: Pilot, tmp_path: Path, module: str) -> None:
    command = ["/usr/bin/python3.11", "-m", "test", f"test_{module}"]
    # As nobody in particular, on both sides: root may do what the suite wants to see refused.
    native = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=400, check=False)
    inside = pilot.run("--workdir", "/tmp", "--memory", "2g", "--", *command, timeout=600)
    assert outcome(inside.stdout.decode() + inside.stderr.decode()) == outcome(native.stdout + native.stderr)


@needs("git")
def test_git_with_five_thousand_files(pilot: Pilot) -> None:
    out = pilot.script(
        """
        export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@a GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@a HOME=$PWD
        git init -q one; cd one
        for d in $(seq 50); do mkdir d$d; for f in $(seq 100); do echo "$d $f" > d$d/f$f; done; done
        git add .; git commit -q -m first; git ls-files | wc -l
        echo changed > d7/f7; rm d8/f8; git status --short; git commit -q -a -m second
        git clone -q . ../two; cd ../two; git log --format=%s; find . -name 'f*' -path './d*' | wc -l; git fsck 2>&1 | grep -v '^notice' | head -3
        git checkout -q HEAD~1; cat d7/f7; git gc -q; git status --short | wc -l
    """,
        timeout=400,
    )
    assert out == "5000\n M d7/f7\n D d8/f8\nsecond\nfirst\n4999\n7 7\n0\n"


@needs("bwrap")
def test_bubblewrap(pilot: Pilot) -> None:
    out = pilot.script("""
        bwrap --ro-bind / / --tmpfs /tmp --proc /proc --dev /dev --unshare-user --unshare-net --unshare-uts --unshare-ipc --hostname inner \\
            --uid 7 --gid 8 sh -c 'id -u; id -g; hostname; touch /tmp/x && ls /tmp; touch /etc/x 2>/dev/null || echo read-only'
    """)
    assert out == "7\n8\ninner\nx\nread-only\n"


@needs("bwrap", "ps")
@pytest.mark.parametrize("user", ["0:0", "1000:1000"])
def test_bubblewrap_shares_nothing(pilot: Pilot, user: str) -> None:
    command = "bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev sh -c 'echo $$; ps -eo pid=,comm= | cat; kill -KILL 1; sleep 9 & echo kept'"
    inside = pilot.run("--user", user, "--", "sh", "-c", command, timeout=60)
    lines = [line.split() for line in inside.stdout.decode().splitlines()]
    assert lines[0] == ["2"]
    assert lines[1:3] == [["1", "bwrap"], ["2", "sh"]]
    assert [line[1] for line in lines[3:-1]] == ["ps", "cat"]
    assert lines[-1] == ["kept"]


@needs("unshare", "mount", "ps")
@pytest.mark.parametrize("options", ["-p", "-Urp"])
def test_unshare_processes(pilot: Pilot, options: str) -> None:
    out = pilot.script(f"""
        unshare {options} --fork --mount-proc sh -c 'echo $$; ps -o pid=,comm= $$; (sleep 100 &); kill -TERM $$; cat /proc/self/status | grep ^NSpid'
        ps -eo comm= | grep -c '^sleep' || true
    """)
    lines = [line.split() for line in out.splitlines()]
    assert lines[0] == ["1"]
    assert lines[1] == ["1", "sh"]
    # Its own number, and nobody else's; what it left behind ended with it.
    assert lines[2][0] == "NSpid:"
    assert len(lines[2]) == 2
    assert lines[3] == ["0"]


@needs("unshare", "mount")
def test_unshare_and_mount(pilot: Pilot) -> None:
    out = pilot.script("""
        unshare -Urm sh -euc 'id -u; mount -t tmpfs -o size=1m none /mnt; echo kept > /mnt/a; cat /mnt/a; umount /mnt; ls /mnt; cat /proc/self/uid_map'
        mkdir a b; echo one > a/f; mount --bind a b; cat b/f; mount -o remount,bind,ro b; touch b/g 2> /dev/null || echo read-only
        findmnt -n -o FSROOT b; umount b; ls b
    """)
    lines = out.split("\n")
    assert lines[:2] == ["0", "kept"]
    assert lines[2].split() == ["0", "0", "1"]
    assert lines[3:5] == ["one", "read-only"]
    assert lines[5] == "/tmp/work/a"


@needs("setfacl", "getfacl")
def test_access_control_lists(pilot: Pilot) -> None:
    out = pilot.script("""
        echo secret > f; chmod 600 f; setfacl -m u:1234:r f; getfacl -cE f; ls -l f | cut -c1-11
        setpriv --reuid 1234 --regid 1234 --clear-groups cat f; setpriv --reuid 1235 --regid 1235 --clear-groups cat f 2> /dev/null || echo denied
        mkdir d; setfacl -d -m g:55:rwx d; touch d/x; getfacl -cE d/x | grep group:; setfacl -b f; getfacl -cE f
    """)
    assert out == (
        "user::rw-\nuser:1234:r--\ngroup::---\nmask::r--\nother::---\n\n-rw-r-----+\nsecret\ndenied\n"
        "group::r-x\ngroup:55:rwx\nuser::rw-\ngroup::---\nother::---\n\n"
    )


@needs("busybox")
def test_busybox(pilot: Pilot) -> None:
    out = pilot.script("""
        mkdir bin; busybox --install -s bin; ls bin | wc -l | busybox awk '{ print ($1 > 200) }'
        busybox sh -c 'cd /tmp/work; seq 3 | busybox tac | busybox xargs echo; busybox tar cf a.tar bin; busybox tar tf a.tar | busybox grep -c /'
    """)
    assert out.startswith("1\n3 2 1\n")


@needs("cargo", "rustc")
def test_cargo_builds_offline(pilot: Pilot) -> None:
    rust = Path(subprocess.run(["rustc", "--print", "sysroot"], capture_output=True, text=True, check=True).stdout.strip())
    out = pilot.script(
        """
        export PATH=/rust/bin:$PATH HOME=$PWD CARGO_HOME=$PWD/cargo
        cargo new --quiet --vcs none thing; cd thing
        printf 'fn main() { println!("{}", (1..=10).product::<u64>()); }\\n#[test]\\nfn works() { assert_eq!(2 + 2, 4); }\\n' > src/main.rs
        cargo run --quiet --offline; cargo test --quiet --offline | grep 'test result'
    """,
        "--volume",
        f"{rust}:/rust:ro",
        "--memory",
        "2g",
        timeout=300,
    )
    assert out.startswith("3628800\ntest result: ok. 1 passed")


@needs("python3")
def test_pip_installs_wheels_from_a_folder(pilot: Pilot, tmp_path: Path) -> None:
    download = [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "-d", str(tmp_path)]
    got = subprocess.run([*download, "numpy==2.3.5", "six==1.17.0"], capture_output=True, text=True, timeout=300, check=False)
    if got.returncode != 0:
        pytest.skip(f"no package index: {got.stderr.strip()[-200:]}")
    out = pilot.script(
        """
        python3 -m venv v; v/bin/pip install -q --disable-pip-version-check --no-index --find-links /wheels numpy six
        v/bin/python -c 'import numpy, six; print(six.__version__, numpy.linalg.inv(numpy.eye(3) * 4).sum(), (numpy.arange(1e6) ** 2).sum())'
    """,
        "--volume",
        f"{tmp_path}:/wheels:ro",
        "--memory",
        "2g",
        timeout=400,
    )
    assert out == "1.17.0 0.75 3.333328333335e+17\n"


@needs("go")
@pytest.mark.parametrize("package", ["os", "path/filepath", "io/fs", "syscall", "internal/poll"])
def test_gos_own_tests_say_the_same(pilot: Pilot, tmp_path: Path, package: str) -> None:
    root = Path(subprocess.run(["go", "env", "GOROOT"], capture_output=True, text=True, check=True).stdout.strip())
    binary = tmp_path / "go.test"
    subprocess.run(["go", "test", "-c", "-o", binary, package], check=True, timeout=600)
    tmp_path.chmod(0o755)

    def failed(output: bytes) -> list[str]:
        return sorted(set(re.findall(r"^\s*--- FAIL: (\S+)", output.decode(errors="replace"), re.MULTILINE)))

    command = ["-test.short", "-test.v", "-test.timeout=300s"]
    native = subprocess.run([binary, *command], cwd=root / "src" / package, capture_output=True, timeout=400, check=False)
    options = ["--volume", f"{root}:/go:ro", "--volume", f"{tmp_path}:/t:ro", "--env", "GOROOT=/go", "--memory", "2g"]
    # Not as the leader of its session: terminals that the tests open would become its own, and their end its end.
    script = " ".join(["/t/go.test", *command, "; exit $?"])
    inside = pilot.run(*options, "--workdir", f"/go/src/{package}", "--", "bash", "-c", script, timeout=400)
    assert set(failed(inside.stdout)) <= set(failed(native.stdout)), inside.stdout[-3000:]
    assert b"PASS" in inside.stdout or native.returncode != 0, inside.stdout[-3000:]


# What needs what the sandbox does not have, or takes the machine itself apart, is left out.
STRESSORS = [
    (
        "access chdir chmod chown copy-file dentry dir dirdeep dup fallocate fcntl file-ioctl filename flock fpunch fstat getdent hdd inotify io "
        "iomix lease link lockf lockofd locka mknod open rename seek symlink sync-file touch unlink utime xattr"
    ),
    (
        "brk bigheap madvise malloc memfd mincore mlock mmap mmapaddr mmapfixed mmapfork mremap msync munmap pageswap remap shm stack tmpfs "
        "userfaultfd vm vm-rw vm-splice"
    ),
]


@needs("stress-ng")
@pytest.mark.parametrize("names", STRESSORS, ids=["files", "memory"])
def test_stressors(pilot: Pilot, names: str) -> None:
    """Each for a moment with its own checks on; what it says about a system without something is no failure."""
    script = """
        for name in $*; do
            timeout -k 5 60 stress-ng --$name 1 --$name-ops 50 --timeout 5 --verify --temp-path /tmp > /tmp/log 2>&1 || true
            grep -E 'fail: |unsuccessful run|terminated on signal' /tmp/log | sed "s/^/$name: /" || true
        done
        echo done
    """
    result = pilot.run("--memory", "1g", "--", "bash", "-c", script, "stress", *names.split(), timeout=840)
    complaints = result.stdout.decode()
    assert complaints == "done\n", complaints
