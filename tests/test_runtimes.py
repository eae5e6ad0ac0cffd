"""Runtimes, debuggers, servers and package tools of Debian, unmodified, inside: what they print is checked."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from harness import Pilot

pytestmark = pytest.mark.timeout(540)


def needs(*programs: str) -> pytest.MarkDecorator:
    """Skips a test where the host lacks a program: what the host does not have, nothing inside can run."""
    missing = [program for program in programs if not shutil.which(program)]
    return pytest.mark.skipif(bool(missing), reason=f"the host has no {' '.join(missing)}")


@needs("node")
def test_node(pilot: Pilot) -> None:
    out = pilot.script("""
        cat > a.js << 'EOF'
        const http = require("http"), { Worker } = require("worker_threads"), child = require("child_process");
        const server = http.createServer((request, response) => response.end("hello " + request.url));
        server.listen(0, async () => {
            const answer = await fetch("http://127.0.0.1:" + server.address().port + "/x");
            console.log(await answer.text());
            server.close();
            console.log(child.execSync("echo child").toString().trim());
            const worker = new Worker('require("worker_threads").parentPort.postMessage(6 * 7)', { eval: true });
            worker.on("message", message => console.log("worker", message));
        });
EOF
        node a.js
    """)
    assert out == "hello /x\nchild\nworker 42\n"


@needs("java", "javac")
def test_java(pilot: Pilot) -> None:
    out = pilot.script(
        """
        cat > A.java << 'EOF'
        import java.util.*;
        import java.util.concurrent.*;
        public class A {
            public static void main(String[] arguments) throws Exception {
                ExecutorService pool = Executors.newFixedThreadPool(8);
                List<Future<Long>> results = new ArrayList<>();
                for (int i = 0; i < 8; i++)
                    results.add(pool.submit(() -> { long sum = 0; for (int j = 0; j < 200; j++) sum += new byte[1 << 20].length; return sum; }));
                long total = 0;
                for (Future<Long> result : results) total += result.get();
                pool.shutdown();
                System.out.println(total);
                new ProcessBuilder("echo", "child").redirectOutput(ProcessBuilder.Redirect.INHERIT).start().waitFor();
            }
        }
EOF
        javac A.java; java A
    """,
        timeout=120,
    )
    assert out == f"{8 * 200 << 20}\nchild\n"


@needs("cmake", "g++")
def test_cmake(pilot: Pilot) -> None:
    out = pilot.script(
        """
        printf 'cmake_minimum_required(VERSION 3.10)\\nproject(x CXX)\\nadd_executable(x x.cc)\\n' > CMakeLists.txt
        printf '#include <iostream>\\nint main() { std::cout << "built" << std::endl; }' > x.cc
        cmake . > /dev/null; make > /dev/null; ./x
    """,
        timeout=100,
    )
    assert out == "built\n"


@needs("strace")
def test_strace(pilot: Pilot) -> None:
    out = pilot.script("""
        strace -o log -f sh -c 'echo hello; /bin/true' > /dev/null
        grep -c 'write(1, "hello.n", 6) *= 6' log; grep -c 'execve(' log; grep -c '+++ exited with 0 +++' log
        strace -o counted -c true; grep -c ' execve$' counted
    """)
    assert out == "1\n2\n2\n1\n"


@needs("gdb", "gcc")
def test_gdb(pilot: Pilot) -> None:
    out = pilot.script("""
        printf 'int twice(int a)\\n{\\n    return a * 2;\\n}\\nint main(void)\\n{\\n    return twice(21);\\n}\\n' > a.c
        gcc -g a.c -o a
        gdb -batch -ex 'break twice' -ex run -ex 'print a' -ex 'set var a = 5' -ex finish -ex stepi -ex continue ./a 2> /dev/null
    """)
    assert "$1 = 21" in out
    assert "Value returned is $2 = 10" in out
    assert "exited with code 012" in out


@needs("tmux")
def test_tmux(pilot: Pilot) -> None:
    out = pilot.script("""
        export TERM=xterm
        tmux new-session -d -s one bash; tmux send-keys -t one 'echo he""llo > /tmp/work/typed' Enter
        for i in $(seq 100); do test -s typed && break; sleep 0.1; done
        cat typed; tmux list-sessions | cut -d: -f1; tmux kill-server
    """)
    assert out == "hello\none\n"


@needs("dpkg-deb")
def test_dpkg(pilot: Pilot) -> None:
    out = pilot.script("""
        mkdir -p p/DEBIAN p/opt/thing /var/lib/dpkg/info /var/lib/dpkg/updates /var/lib/dpkg/triggers
        touch /var/lib/dpkg/status /var/lib/dpkg/available
        echo content > p/opt/thing/file
        printf 'Package: thing\\nVersion: 1.0\\nArchitecture: all\\nMaintainer: x <x@x>\\nDescription: thing\\n' > p/DEBIAN/control
        printf '#!/bin/sh\\necho "post $1"\\n' > p/DEBIAN/postinst; chmod 755 p/DEBIAN/postinst
        dpkg-deb --build p thing.deb > /dev/null; dpkg -i thing.deb | grep post
        cat /opt/thing/file; dpkg -s thing | grep Status; dpkg -r thing > /dev/null 2>&1; test -e /opt/thing || echo gone
    """)
    assert out == "post configure\ncontent\nStatus: install ok installed\ngone\n"


@needs("ssh", "ssh-keygen")
@pytest.mark.skipif(not Path("/usr/sbin/sshd").exists(), reason="the host has no sshd")
def test_ssh(pilot: Pilot) -> None:
    out = pilot.script("""
        ssh-keygen -q -t ed25519 -N '' -f key; ssh-keygen -q -t ed25519 -N '' -f host
        mkdir -p /run/sshd; /usr/sbin/sshd -p 2222 -h $PWD/host -o StrictModes=no -o AuthorizedKeysFile=$PWD/key.pub -E log
        options='-o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR'
        ssh -p 2222 -i key $options 127.0.0.1 'echo over ssh; exit 3' || echo "ended with $?"
        kill $(cat /run/sshd.pid)
    """)
    assert out == "over ssh\nended with 3\n"


@pytest.mark.skipif(not Path("/usr/lib/postgresql/15/bin/initdb").exists(), reason="the host has no PostgreSQL 15")
def test_postgresql(pilot: Pilot) -> None:
    out = pilot.script(
        """
        mkdir d; chown 1000:1000 d
        cat > s << 'EOF'
        export PATH=/usr/lib/postgresql/15/bin:$PATH HOME=/tmp/work/d PGHOST=/tmp/work/d PGUSER=owner
        start() { pg_ctl -D d/data -o "-k /tmp/work/d -h ''" -l d/log -w start > /dev/null; }
        initdb -U owner -A trust -D d/data > /dev/null; start
        createdb bench; pgbench -i -q bench 2> /dev/null; pgbench -c 4 -t 25 bench | grep processed
        pg_ctl -D d/data -m immediate stop > /dev/null; start
        psql -At bench -c 'select count(*) from pgbench_accounts' -c 'select count(*) from pgbench_history'
        pg_ctl -D d/data stop > /dev/null
EOF
        echo owner:x:1000:1000::/tmp/work/d:/bin/bash >> /etc/passwd
        setpriv --reuid 1000 --regid 1000 --clear-groups bash -eu s
    """,
        timeout=150,
    )
    assert out == "number of transactions actually processed: 100/100\n100000\n100\n"


@needs("sqlite3")
def test_sqlite_wal_of_two_processes(pilot: Pilot) -> None:
    out = pilot.script("""
        sqlite3 a.db 'pragma journal_mode = wal; create table t(a integer primary key, b text);'
        for i in 1 2; do
            (for j in $(seq 50); do sqlite3 -cmd '.timeout 20000' a.db 'insert into t(b) values(hex(randomblob(20)));'; done) &
        done
        wait; sqlite3 a.db 'select count(*) from t; pragma integrity_check'
    """)
    assert out == "wal\n100\nok\n"


@needs("ipcmk", "ipcs", "ipcrm")
def test_system_v_ipc(pilot: Pilot) -> None:
    out = pilot.script("""
        ipcmk -M 8192 > /dev/null; ipcmk -S 3 > /dev/null; ipcmk -Q > /dev/null
        ipcs | grep -c '^0x'; ipcrm -a; ipcs | grep -c '^0x' || true
    """)
    assert out == "3\n0\n"


SUITE = Path(sys.base_prefix) / "lib" / f"python{sys.version_info.major}.{sys.version_info.minor}"


@pytest.mark.skipif(not (SUITE / "test/test_os.py").exists(), reason="this Python comes without its regression suite")
@pytest.mark.parametrize(
    "module", ["posix", "fileio", "mmap", "tempfile", "shutil", "time", "pty", "select", "epoll", "wait4", "threadsignals", "signal"]
)
def test_pythons_own_suite(pilot: Pilot, module: str) -> None:
    interpreter = f"LD_LIBRARY_PATH=/python/lib PYTHONHOME=/python /python/bin/{SUITE.name}"
    out = pilot.script(f"{interpreter} -m test test_{module} 2>&1 | tail -20", "--volume", f"{sys.base_prefix}:/python:ro", timeout=120)
    assert "Result: SUCCESS" in out, out
