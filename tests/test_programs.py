"""Debian's programs, unmodified, inside: what they print is checked."""

from __future__ import annotations

import pytest
from harness import Pilot

pytestmark = pytest.mark.timeout(360)


def test_bash_pipes_and_substitutions(pilot: Pilot) -> None:
    out = pilot.script("""
        seq 1 1000 | grep 7 | sort -rn | head -3 | tr '\\n' ' '
        echo "$(echo nested $(echo deeper))"
        read -r a b <<< "here string"; echo "$b $a"
        diff <(seq 3) <(seq 4) || true
        set -o pipefail; false | true || echo "pipe failed ${PIPESTATUS[0]}"
        cat << EOF
document $((6 * 7))
EOF
        exec 5> five; echo to five >&5; exec 5>&-; cat five
        trap 'echo bye' EXIT
    """)
    assert out == "997 987 979 nested deeper\nstring here\n3a4\n> 4\npipe failed 1\ndocument 42\nto five\nbye\n"


def test_bash_job_control(pilot: Pilot) -> None:
    out = pilot.script("""
        set -m
        sleep 100 & first=$!
        (sleep 0.1; exit 3) & second=$!
        wait $second || echo "second ended with $?"
        kill -STOP %1; sleep 0.1; jobs %1 | grep -o Stopped
        kill -CONT %1; kill %1; wait $first || echo "first ended with $?"
        (trap 'echo caught; exit 0' USR1; kill -USR1 $BASHPID; sleep 5)
        coproc cat; echo through >&${COPROC[1]}; read -r line <&${COPROC[0]}; echo $line
        timeout 0.2 sleep 5 || echo "timeout said $?"
    """)
    assert out == "second ended with 3\nStopped\nfirst ended with 143\ncaught\nthrough\ntimeout said 124\n"


def test_coreutils(pilot: Pilot) -> None:
    out = pilot.script("""
        printf 'b 2\\na 1\\nc 3\\n' > f
        sort f | cut -d' ' -f2 | paste -sd+ | tee sum; wc -l < f; md5sum < f | cut -c1-8; nl f | tail -1
        cp -a f g; cmp f g && echo same; mv g h; ln -s h link; readlink -f link; ln h hard; stat -c '%h %s %a' h
        mkdir -p d/e; touch -d '2020-02-02 02:02:02 UTC' d/e/x; date -u -r d/e/x +%F; rm -r d; ls
        dd if=/dev/zero of=z bs=1k count=64 status=none; truncate -s 100k z; du -b z | cut -f1
        split -n 2 z part; ls part*; base64 -w0 <<< hello; echo; seq 5 | shuf | sort -n | tac | head -1
        test "$(head -c 100000 /dev/urandom | wc -c)" = 100000 && echo random; df . | tail -1 | awk '{print ($2 > 0)}'
        chmod 4751 f; stat -c %A f; install -m 600 f i; stat -c %a i; nproc | grep -c '[1-9]'; id -un; env -i /usr/bin/env | wc -l
    """)
    assert out.splitlines() == [
        "1+2+3", "3", "d208a499", "     3\tc 3", "same", "/tmp/work/h", "2 12 644", "2020-02-02", "f", "h", "hard", "link", "sum",
        "102400", "partaa", "partab", "aGVsbG8K", "5", "random", "1", "-rwsr-x--x", "600", "1", "root", "0",
    ]  # fmt: skip


def test_find_grep_sed_awk(pilot: Pilot) -> None:
    out = pilot.script("""
        mkdir -p a/b/c; echo 'The quick brown fox' > a/1.txt; echo 'jumps over' > a/b/2.txt; echo lazy > a/b/c/3.log
        find a -name '*.txt' | sort; find a -type d | wc -l; find a -name '*.log' -exec cat {} +; find a -newer a/1.txt -type f | wc -l
        grep -rl 'o' a | sort; grep -c fox a/1.txt; grep -oP 'q\\w+' a/1.txt
        sed -e 's/quick/slow/' -e 's/\\(brown\\) \\(fox\\)/\\2 \\1/' a/1.txt; sed -i '1i first' a/b/2.txt; cat a/b/2.txt
        awk 'BEGIN { for (i = 1; i <= 10; i++) s += i; print s } { n += NF } END { print n, toupper($2) }' a/1.txt
        find a -print0 | xargs -0 -n1 basename | sort | tr '\\n' ' '
    """)
    assert out.splitlines() == [
        "a/1.txt", "a/b/2.txt", "3", "lazy", "2", "a/1.txt", "a/b/2.txt", "1", "quick", "The slow fox brown", "first", "jumps over",
        "55", "4 QUICK", "1.txt 2.txt 3.log a b c ",
    ]  # fmt: skip


@pytest.mark.parametrize(("letter", "program"), [("z", "gzip"), ("J", "xz"), ("", "zstd")])
def test_archives(pilot: Pilot, letter: str, program: str) -> None:
    create = f"tar -c{letter}f" if letter else "tar -I zstd -cf"
    extract = f"tar -x{letter}f" if letter else "tar -I zstd -xf"
    out = pilot.script(f"""
        mkdir tree; mkdir tree/include; cp -r /usr/include/*.h /usr/include/asm-generic tree/include/; ln -s include tree/link; ln tree/include/stdio.h tree/hard; mkfifo tree/fifo
        {create} tree.tar tree; mkdir out; {extract} tree.tar -C out
        diff -r --no-dereference tree/include out/tree/include && echo the same
        readlink out/tree/link; stat -c %h out/tree/hard; test -p out/tree/fifo && echo fifo
        {program} -t < tree.tar && echo intact
    """)
    assert out == "the same\ninclude\n2\nfifo\nintact\n"


PYTHON = {
    "subprocess": """
import subprocess, sys, os, signal
print(subprocess.run(["sort", "-r"], input=b"a\\nb\\n", capture_output=True).stdout)
print(subprocess.check_output([sys.executable, "-c", "import os; print(os.getppid() > 0)"], text=True).strip())
p = subprocess.Popen(["sleep", "50"]); p.terminate(); print(p.wait())
try: subprocess.run(["sleep", "5"], timeout=0.2)
except subprocess.TimeoutExpired: print("expired")
r, w = os.pipe(); pid = os.fork()
if pid == 0: os.write(w, b"child"); os._exit(3)
print(os.read(r, 9), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
""",
    "threading": """
import threading, queue, time
q, out, lock = queue.Queue(), [], threading.Lock()
def work():
    while (item := q.get()) is not None:
        with lock: out.append(item * item)
threads = [threading.Thread(target=work) for _ in range(8)]
for t in threads: t.start()
for i in range(1000): q.put(i)
for t in threads: q.put(None)
for t in threads: t.join()
print(sum(out), threading.active_count())
e = threading.Event(); threading.Timer(0.1, e.set).start(); print(e.wait(5)); print(e.wait(0.01), threading.Condition() is not None)
b = threading.Barrier(4); ts = [threading.Thread(target=b.wait) for _ in range(3)]
for t in ts: t.start()
b.wait(); print("barrier")
""",
    "asyncio": """
import asyncio
async def serve(reader, writer):
    while line := await reader.readline():
        writer.write(line.upper())
    writer.close()
async def client(port, host, n):
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(b"hello %d\\n" % n); answer = await reader.readline()
    writer.close(); await writer.wait_closed()
    return answer
async def main():
    for host in ("127.0.0.1", "::1"):
        server = await asyncio.start_server(serve, host, 0)
        port = server.sockets[0].getsockname()[1]
        answers = await asyncio.gather(*(client(port, host, n) for n in range(50)))
        print(len(answers), answers[7])
        server.close()
    process = await asyncio.create_subprocess_exec("cat", stdin=-1, stdout=-1)
    print((await process.communicate(b"piped"))[0], process.returncode)
    await asyncio.wait_for(asyncio.sleep(0.01), 1)
asyncio.run(main())
""",
    "multiprocessing": """
import multiprocessing as mp
def square(n): return n * n
if __name__ == "__main__":
    for method in ("fork", "spawn", "forkserver"):
        with mp.get_context(method).Pool(3) as pool:
            print(method, sum(pool.map(square, range(200))))
    value = mp.Value("i", 0)
    def add():
        for _ in range(1000):
            with value.get_lock(): value.value += 1
    processes = [mp.Process(target=add) for _ in range(4)]
    for p in processes: p.start()
    for p in processes: p.join()
    print(value.value)
    from multiprocessing import shared_memory
    m = shared_memory.SharedMemory(create=True, size=100); m.buf[0] = 7
    n = shared_memory.SharedMemory(m.name); print(n.buf[0]); n.close(); m.unlink()
""",
    "sqlite3": """
import sqlite3
db = sqlite3.connect("/tmp/work/test.db"); db.execute("pragma journal_mode=wal")
db.execute("create table t (a integer primary key, b text)")
db.executemany("insert into t (b) values (?)", [(str(n),) for n in range(5000)]); db.commit()
other = sqlite3.connect("/tmp/work/test.db")
print(other.execute("select count(*), max(a), sum(length(b)) from t").fetchone())
db.execute("begin immediate")
other.execute("pragma busy_timeout=100")
try: other.execute("begin immediate")
except sqlite3.OperationalError as error: print(error)
db.rollback(); print(other.execute("pragma integrity_check").fetchone())
""",
    "files": """
import os, mmap, tempfile, fcntl, select, socket, signal, time
f = open("m", "w+b"); f.truncate(8192); m = mmap.mmap(f.fileno(), 8192); m[5000:5005] = b"hello"; m.flush()
print(os.pread(f.fileno(), 5, 5000)); os.pwrite(f.fileno(), b"J", 5000); print(bytes(m[5000:5005]))
fcntl.flock(f, fcntl.LOCK_EX); g = open("m")
try: fcntl.flock(g, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError: print("locked")
a, b = socket.socketpair(); e = select.epoll(); e.register(a, select.EPOLLIN); print(e.poll(0)); b.send(b"x"); print(e.poll(1)[0][1])
r, w = os.pipe(); socket.send_fds(a, [b"fd"], [w]); data, fds, _, _ = socket.recv_fds(b, 10, 1); os.write(fds[0], b"sent"); print(os.read(r, 9))
hits = []; signal.signal(signal.SIGALRM, lambda *_: hits.append(1)); signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05); time.sleep(0.3); signal.setitimer(signal.ITIMER_REAL, 0)
print(len(hits) >= 3, os.path.exists("/proc/self/fd/0"), sorted(os.listdir("/proc/self"))[:1] != [])
s = os.memfd_create("x"); os.write(s, b"abc"); print(os.stat(f"/proc/self/fd/{s}").st_size, os.sendfile(w, s, 0, 3), os.read(r, 3))
""",
}
PRINTED = {
    "subprocess": "b'b\\na\\n'\nTrue\n-15\nexpired\nb'child' 3\n",
    "threading": "332833500 1\nTrue\nTrue True\nbarrier\n",
    "asyncio": "50 b'HELLO 7\\n'\n50 b'HELLO 7\\n'\nb'piped' 0\n",
    "multiprocessing": "fork 2646700\nspawn 2646700\nforkserver 2646700\n4000\n7\n",
    "sqlite3": "(5000, 5000, 18890)\ndatabase is locked\n('ok',)\n",
    "files": "b'hello'\nb'Jello'\nlocked\n[]\n1\nb'sent'\nTrue True True\n3 3 b'abc'\n",
}


@pytest.mark.parametrize("name", sorted(PYTHON))
def test_python(pilot: Pilot, name: str) -> None:
    out = pilot.script("cat > program.py; /usr/bin/python3 program.py", stdin=PYTHON[name].encode(), timeout=90)
    assert out == PRINTED[name]


def test_python_venv(pilot: Pilot) -> None:
    out = pilot.script(
        """
        /usr/bin/python3 -m venv --without-pip env; . env/bin/activate
        python -c 'import sys; print(sys.prefix != sys.base_prefix, sys.prefix)'
        """,
        timeout=90,
    )
    assert out == "True /tmp/work/env\n"


def test_perl(pilot: Pilot) -> None:
    out = pilot.script(r"""
        perl -e 'my %h; $h{length $_}++ for qw(a bb cc ddd); print join(",", map {"$_=$h{$_}"} sort keys %h), "\n"'
        printf 'x=1\ny=2\n' | perl -ne 'print "$2$1\n" if /(\w)=(\d)/'
        perl -MPOSIX -e 'my $pid = fork; if (!$pid) { exit 4 } waitpid $pid, 0; print $? >> 8, " ", strftime("%Y", gmtime 0), "\n"'
        perl -MSocket -MIO::Socket::INET -e '
            my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1") or die $!;
            if (!fork) { my $c = IO::Socket::INET->new(PeerAddr => "127.0.0.1", PeerPort => $s->sockport); print $c "over tcp\n"; exit }
            my $c = $s->accept; print scalar <$c>; wait'
    """)
    assert out == "1=1,2=2,3=1\n1x\n2y\n4 1970\nover tcp\n"


def test_gcc_and_make(pilot: Pilot) -> None:
    out = pilot.script(
        r"""
        cat > add.c << 'EOF'
int add(int a, int b) { return a + b; }
EOF
        cat > times.c << 'EOF'
#include <math.h>
double times(double a, double b) { return floor(a * b + 0.5); }
EOF
        cat > main.c << 'EOF'
#include <pthread.h>
#include <stdio.h>
int add(int, int); double times(double, double);
static void *run(void *arg) { *(int *)arg = add(*(int *)arg, 1); return 0; }
int main(void) {
    int n = 40; pthread_t t;
    pthread_create(&t, 0, run, &n); pthread_join(t, 0);
    printf("%d %.0f\n", add(n, 1), times(2, 21));
    return 0;
}
EOF
        printf 'CFLAGS = -O2 -Wall -pthread\nprogram: main.o add.o libtimes.a\n\t$(CC) $(CFLAGS) -o $@ main.o add.o -L. -ltimes -lm\n' > Makefile
        printf 'libtimes.a: times.o\n\tar rc $@ $^\nclean:\n\trm -f *.o *.a program\n' >> Makefile
        make -s -j2 && ./program && make -q && echo up to date
        touch add.c; make -s -j2; ./program; gcc -static -O1 -o static main.c add.c times.c -lm -pthread; ./static; make clean > /dev/null; ls *.c | wc -l
    """,
        timeout=100,
    )
    assert out == "42 42\nup to date\n42 42\n42 42\n3\n"


def test_git(pilot: Pilot) -> None:
    out = pilot.script(
        """
        export GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b HOME=/tmp/work
        git init -q -b main one; cd one
        for n in 1 2 3 4 5; do echo $n > file$n; git add .; git commit -qm "commit $n"; done
        git log --oneline | wc -l; git status --short | wc -l
        git checkout -q -b side HEAD~2; echo side > side; git add side; git commit -qm side
        git merge -q -m merged main; git log --oneline | wc -l
        git gc -q --aggressive; git count-objects -v | grep ^packs; git fsck --full 2>&1 | grep -c error || true
        cd ..; git clone -q one two; cd two; ls; git rev-parse --abbrev-ref HEAD
        git clone -q --no-local ../one ../three; git -C ../three show --stat HEAD~1 | tail -1
    """,
        timeout=100,
    )
    lines = out.splitlines()
    assert lines[:5] == ["5", "0", "7", "packs: 1", "0"]
    assert lines[5:-1] == ["file1", "file2", "file3", "file4", "file5", "side", "side"]
    assert "1 file changed" in lines[-1]


def test_sqlite_shell(pilot: Pilot) -> None:
    out = pilot.script("""
        sqlite3 x.db 'create table t(a); insert into t values (1), (2); select sum(a) from t;'
        sqlite3 x.db '.dump' | grep -c INSERT
    """)
    assert out == "3\n2\n"


def test_processes_are_seen_inside(pilot: Pilot) -> None:
    out = pilot.script("""
        sleep 100 & ps -eo comm | grep -c '^sleep$'; pgrep -c sleep; pkill sleep; wait || true
        test "$(cat /proc/$$/comm)" = bash && echo comm; grep -c '' /proc/mounts | grep -qv '^0$' && echo mounts
        free -b | awk '/Mem/ { print ($2 > 0) }'; uptime | grep -o 'load average' ; cat /proc/cpuinfo | grep -c ^processor | grep -qv '^0$' && echo cpus
    """)
    assert out == "1\n1\ncomm\nmounts\n1\nload average\ncpus\n"
