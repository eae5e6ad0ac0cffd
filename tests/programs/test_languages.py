"""Runtimes at work: threads, collectors, preemption, servers and clients in one program, package tools; what they print is checked."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from harness import Pilot

pytestmark = pytest.mark.timeout(1800)

GO_PROGRAM = r"""
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

var kept []byte

func main() {
	runtime.GOMAXPROCS(1)
	var stop atomic.Bool
	go func() {
		for !stop.Load() {
		}
	}()
	// Comes back only if the loop above is preempted.
	time.Sleep(20 * time.Millisecond)
	fmt.Println("preempted")
	stop.Store(true)
	runtime.GOMAXPROCS(4)
	var group sync.WaitGroup
	var sum atomic.Int64
	numbers := make(chan int64, 16)
	for i := 0; i < 1000; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			sum.Add(<-numbers)
		}()
	}
	for i := int64(0); i < 1000; i++ {
		numbers <- i
	}
	group.Wait()
	fmt.Println(sum.Load())
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello ", r.URL.Path) }))
	for i := 0; i < 200; i++ {
		group.Add(1)
		go func() {
			defer group.Done()
			answer, err := http.Get("http://" + listener.Addr().String() + "/x")
			if err != nil {
				panic(err)
			}
			body, _ := io.ReadAll(answer.Body)
			answer.Body.Close()
			if string(body) != "hello /x" {
				panic(string(body))
			}
		}()
	}
	group.Wait()
	fmt.Println("served")
	out, err := exec.Command("echo", "child").Output()
	fmt.Print(string(out))
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	syscall.Kill(os.Getpid(), syscall.SIGUSR1)
	fmt.Println(<-signals)
	interfaces, err := net.Interfaces()
	addresses, _ := interfaces[0].Addrs()
	fmt.Println(interfaces[0].Name, addresses, err)
	garbage := 0
	for i := 0; i < 20000; i++ {
		kept = make([]byte, 10000)
		garbage += len(kept)
	}
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	fmt.Println(garbage, memory.NumGC > 0)
}
"""


def go() -> str | None:
    return shutil.which("go") or next((path for path in ("/usr/local/go/bin/go",) if Path(path).exists()), None)


@pytest.mark.skipif(go() is None, reason="the host has no go")
def test_go(pilot: Pilot, tmp_path: Path) -> None:
    """Built outside, since it is the program that is tried; the compiler has a test of its own."""
    (tmp_path / "main.go").write_text(GO_PROGRAM)
    subprocess.run([str(go()), "build", "-o", "main", "main.go"], cwd=tmp_path, check=True, timeout=500)
    for directory in (tmp_path, *list(tmp_path.parents)[:2]):
        directory.chmod(0o755)
    out = pilot.output("--volume", f"{tmp_path}:/go:ro", "--", "/go/main", timeout=60)
    assert out.splitlines() == [
        "preempted", "499500", "served", "child", "user defined signal 1", "lo [127.0.0.1/8 ::1/128] <nil>", "200000000 true",
    ]  # fmt: skip


JAVA_PROGRAM = """
import java.net.*;
import java.util.*;
import java.util.concurrent.*;

public class Work {
    public static void main(String[] arguments) throws Exception {
        ConcurrentHashMap<Integer, byte[]> kept = new ConcurrentHashMap<>();
        List<Thread> threads = new ArrayList<>();
        for (int t = 0; t < 6; t++) {
            int seed = t;
            Thread thread = new Thread(() -> {
                Random random = new Random(seed);
                for (int i = 0; i < 30000; i++) kept.put(seed * 100 + random.nextInt(100), new byte[1000 + random.nextInt(9000)]);
            });
            thread.start();
            threads.add(thread);
        }
        for (Thread thread : threads) thread.join();
        System.gc();
        long collections = java.lang.management.ManagementFactory.getGarbageCollectorMXBeans().stream().mapToLong(b -> b.getCollectionCount()).sum();
        System.out.println(kept.size() + " " + (collections > 0));
        var server = com.sun.net.httpserver.HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
        server.createContext("/", exchange -> {
            byte[] answer = "from java".getBytes();
            exchange.sendResponseHeaders(200, answer.length);
            exchange.getResponseBody().write(answer);
            exchange.close();
        });
        server.start();
        var request = java.net.http.HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + server.getAddress().getPort() + "/")).build();
        System.out.println(java.net.http.HttpClient.newHttpClient().send(request, java.net.http.HttpResponse.BodyHandlers.ofString()).body());
        System.exit(0);
    }
}
"""


@pytest.mark.parametrize("collector", ["SerialGC", "G1GC", "ZGC", "ParallelGC"])
def test_java_collectors_under_load(pilot: Pilot, collector: str) -> None:
    script = f"cat > Work.java; javac Work.java; java -Xmx256m -XX:+Use{collector} Work"
    out = pilot.script(script, stdin=JAVA_PROGRAM.encode(), timeout=200)
    assert out.splitlines() == ["600 true", "from java"]


def test_npm(pilot: Pilot) -> None:
    out = pilot.script(
        """
        export HOME=$PWD; npm --version | grep -c '^[0-9]'
        mkdir a b; echo '{"name": "a", "version": "1.0.0", "main": "i.js"}' > a/package.json; echo 'module.exports = 42' > a/i.js
        cd b; echo '{"name": "b", "version": "1.0.0", "scripts": {"show": "node -p 6*7"}}' > package.json
        npm install --offline --no-audit --no-fund ../a > log 2>&1; node -e 'console.log(require("a"))'; npm run -s show
    """,
        timeout=200,
    )
    assert out.splitlines() == ["1", "42", "42"]


PAGE = """
<html><body style="margin: 0; background: rgb(10, 200, 30)"><p id="sum"></p>
<script>document.getElementById("sum").textContent = "sum " + 6 * 7</script></body></html>
"""
READ_PICTURE = """
import struct, zlib
data = open("shot.png", "rb").read()
at, pixels = 8, b""
while at < len(data):
    length, kind = struct.unpack(">I4s", data[at:at + 8])
    if kind == b"IHDR": width, height = struct.unpack(">II", data[at + 8:at + 16])
    if kind == b"IDAT": pixels += data[at + 8:at + 8 + length]
    at += 12 + length
last = zlib.decompress(pixels)[-3:]
print(width, height, len(last))
"""


def test_chromium_in_its_own_sandbox(pilot: Pilot) -> None:
    """As an ordinary user, with a renderer that its own filters and PID namespaces hold."""
    script = """
        cd /tmp; mkdir own; cd own; export HOME=$PWD; cat > page.html
        chromium --headless --disable-gpu --dump-dom file://$PWD/page.html 2> log | grep -o 'sum 42'
        chromium --headless --disable-gpu --remote-debugging-port=0 --user-data-dir=$PWD/second about:blank 2> log &
        for attempt in $(seq 300); do
            for process in $(pgrep -f type=renderer); do
                grep -q '^Seccomp:.2' /proc/$process/status || continue
                grep -E '^(NSpid|CapEff):' /proc/$process/status; kill $!; wait; exit
            done
            sleep 0.1
        done
    """
    result = pilot.run("--user", "1000:1000", "--memory", "3g", "--", "sh", "-c", script, stdin=PAGE.encode(), timeout=300)
    lines = [line.split() for line in result.stdout.decode().splitlines()]
    assert lines[0] == ["sum", "42"], result.stderr.decode()[-2000:]
    assert lines[1][0] == "NSpid:"
    assert len(lines[1]) > 2
    assert lines[2:] == [["CapEff:", "0000000000000000"]]


def test_chromium(pilot: Pilot) -> None:
    """A local page's script runs, and a picture of the page has its size and colour."""
    script = """
        cat > page.html; export HOME=$PWD; options='--headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=64,48'
        chromium $options --dump-dom file://$PWD/page.html 2> log | grep -o 'sum 42'
        chromium $options --screenshot=$PWD/shot.png --force-color-profile=srgb file://$PWD/page.html > log 2>&1
        python3 read.py
    """
    out = pilot.script(f"cat > read.py << 'EOF'\n{READ_PICTURE}\nEOF\n" + script, stdin=PAGE.encode(), timeout=300)
    assert out.splitlines() == ["sum 42", "64 48 3"]
