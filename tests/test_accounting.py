"""What sandboxes use: bytes and operations, by `/proc` and control-group files inside, by the SDK and by `pilot stats` outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from harness import Pilot

from cloudpilot import Sandbox

SIZE = 300_000


def counters(text: str) -> dict[str, int]:
    return {name: int(value) for name, _, value in (line.partition(": ") for line in text.splitlines() if ": " in line)}


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    tmp_path.chmod(0o777)
    (tmp_path / "in").write_bytes(bytes(SIZE))
    return tmp_path


def test_a_process_sees_what_it_read_and_wrote(pilot: Pilot, volume: Path) -> None:
    code = """
import json, os
def io():
    return dict((n, int(v)) for n, v in (l.split(': ') for l in open('/proc/self/io').read().splitlines()))
before = io()
source = os.open('/volume/in', os.O_RDONLY)
for _ in range(3):
    os.pread(source, 100000, 0)
target = os.open('/volume/out', os.O_WRONLY | os.O_CREAT)
os.write(target, bytes(5000))
memory = os.open('/tmp/x', os.O_RDWR | os.O_CREAT)
os.write(memory, bytes(7000))
after = io()
print(json.dumps({name: after[name] - before[name] for name in after}))
"""
    shown = pilot.run("--volume", f"{volume}:/volume", "--", "python3", "-c", code)
    moved = json.loads(shown.stdout)
    assert moved["read_bytes"] == 300_000
    assert moved["write_bytes"] == 5000
    assert moved["wchar"] == 12_000
    # The question about itself is counted, too.
    assert 300_000 < moved["rchar"] < 302_000
    assert moved["syscw"] == 2
    assert moved["syscr"] >= 4


def test_threads_and_children_that_are_gone_count_on(pilot: Pilot, volume: Path) -> None:
    code = """
import os, threading
def work():
    fd = os.open('/volume/in', os.O_RDONLY); os.pread(fd, 100000, 0); os.close(fd)
thread = threading.Thread(target=work); thread.start(); thread.join()
print(open('/proc/self/io').read())
if os.fork() == 0:
    work(); os._exit(0)
os.wait()
print(open('/sys/fs/cgroup/io.stat').read())
"""
    lines = pilot.run("--volume", f"{volume}:/volume", "--", "python3", "-c", code).stdout.decode()
    # What Python itself reads of its library is storage as well.
    own = counters(lines)["read_bytes"]
    assert own >= 100_000
    device = dict(field.split("=") for field in lines.split("254:0 ")[1].split())
    assert int(device["rbytes"]) >= own + 100_000
    assert int(device["rios"]) > 2


def test_outside_and_inside_agree(volume: Path) -> None:
    with Sandbox.create(volumes={str(volume): "/volume"}) as sandbox:
        before = sandbox.get_metrics()
        assert sandbox.commands.run("cat /volume/in > /volume/copy; cat /sys/fs/cgroup/io.stat").stdout.startswith("254:0 rbytes=")
        after = sandbox.get_metrics()
        assert after.storage_read_bytes - before.storage_read_bytes >= SIZE
        assert after.storage_written_bytes - before.storage_written_bytes == SIZE
        assert after.storage_writes > before.storage_writes
        assert after.cpu_seconds > before.cpu_seconds
        assert 0 < after.mem_used < after.mem_total
        inside = sandbox.commands.run("cat /sys/fs/cgroup/io.stat").stdout
        written = dict(field.split("=") for field in inside.split()[1:])["wbytes"]
        assert int(written) == after.storage_written_bytes
        assert (volume / "copy").stat().st_size == SIZE


def test_the_network_is_counted_apart_from_the_loopback(pilot: Pilot) -> None:
    code = """
import socket, threading
server = socket.create_server(('127.0.0.1', 0))
def serve():
    connection, _ = server.accept()
    while connection.recv(4096): pass
thread = threading.Thread(target=serve); thread.start()
client = socket.create_connection(server.getsockname()); client.sendall(bytes(50000)); client.close(); thread.join()
udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); udp.bind(('127.0.0.1', 0))
for _ in range(10): udp.sendto(b'12345', udp.getsockname())
for _ in range(10): udp.recv(100)
print(open('/proc/net/dev').read())
"""
    rows = pilot.run("--", "python3", "-c", code).stdout.decode().splitlines()
    loopback = next(row for row in rows if row.strip().startswith("lo:")).split()
    assert int(loopback[1]) == int(loopback[9]) == 50_050
    assert int(loopback[2]) > 10
    assert int(loopback[10]) > 10


def test_stats_tell_it_too(pilot: Pilot, volume: Path) -> None:
    pilot.run("--detach", "--name", "busy", "--volume", f"{volume}:/volume", "--", "sh", "-c", "cat /volume/in > /volume/x; sleep 60")
    try:
        pilot("exec", "busy", "sh", "-c", "while [ $(stat -c %s /volume/x) != 300000 ]; do sleep 0.05; done")
        guest = json.loads(pilot("stats", "--json", "busy").stdout)[0]["guest"]
        assert guest["storage"]["read_bytes"] >= SIZE
        assert guest["storage"]["written_bytes"] == SIZE
        assert guest["io"]["written_bytes"] >= SIZE
        assert guest["network"] == {"received_bytes": 0, "sent_bytes": 0, "received_packets": 0, "sent_packets": 0}
        shown = pilot("stats", "busy").stdout.decode().splitlines()
        assert shown[0].split()[-4:] == ["READ", "WRITTEN", "RECEIVED", "SENT"]
    finally:
        pilot("kill", "busy")
