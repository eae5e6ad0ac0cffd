"""Sockets: unix, the internet's within a sandbox, and through the host when asked for."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from harness import Pilot

pytestmark = pytest.mark.timeout(360)


@pytest.mark.parametrize("options", [(), ("--network", "host")])
def test_calls_answer_as_on_the_host(pilot: Pilot, guests: Path, options: tuple[str, ...]) -> None:
    """Streams, packets, datagrams, descriptors in messages, TCP, UDP and timeouts: what the host's kernel answers to the same program."""
    expected = subprocess.run([guests / "sockets"], capture_output=True, check=True, timeout=30).stdout.decode()
    # Sockets tell who is at their other end.
    user = f"{os.getuid()}:{os.getgid()}"
    got = pilot.output(*options, "--user", user, "-v", f"{guests}:/guests:ro", "--", "/guests/sockets")
    assert got.splitlines() == expected.splitlines()


@pytest.mark.skipif(os.geteuid() != 0, reason="raw sockets need root on the host, too")
def test_packets_look_as_on_the_host(pilot: Pilot, guests: Path) -> None:
    """Hops, classes, interfaces and errors in control data; raw sockets and echoes over the loopback."""
    expected = subprocess.run([guests / "packets"], capture_output=True, check=True, timeout=30).stdout.decode()
    got = pilot.output("-v", f"{guests}:/guests:ro", "--", "/guests/packets")
    assert got.splitlines() == expected.splitlines()


@pytest.mark.skipif(os.geteuid() != 0, reason="some options need root on the host, too")
def test_connections_end_as_on_the_host(pilot: Pilot, guests: Path) -> None:
    """States, half-closed connections, resets, refusals, sockets that connect to themselves, names, and what options take and show."""
    expected = subprocess.run([guests / "connections"], capture_output=True, check=True, timeout=30).stdout.decode()
    got = pilot.output("-v", f"{guests}:/guests:ro", "--", "/guests/connections")
    assert got.splitlines() == expected.splitlines()


def test_echo_requests_without_privilege(pilot: Pilot) -> None:
    """What `ping` of an ordinary user does; hosts may forbid it, the sandbox has no reason to."""
    out = pilot.output("--user", "1000:1000", "--", "python3", "-c", PING)
    assert out.splitlines() == ["0 b'hello' 127.0.0.1", "129 b'hello' ::1"]


PING = """
import socket
for family, protocol, kind, host in (socket.AF_INET, 1, 8, "127.0.0.1"), (socket.AF_INET6, 58, 128, "::1"):
    with socket.socket(family, socket.SOCK_DGRAM, protocol) as s:
        s.settimeout(10)
        s.sendto(bytes([kind, 0, 0, 0, 9, 9, 0, 1]) + b"hello", (host, 0))
        answer, sender = s.recvfrom(99)
        print(answer[0], answer[8:], sender[0])
"""


def test_groups_reach_who_joined(pilot: Pilot) -> None:
    out = pilot.output("--", "python3", "-c", GROUPS)
    assert out.splitlines() == ["b'first' b'first' none", "none b'second' none", "b'sixth' none"]


GROUPS = """
import socket, struct
def receiver(port, join=True, all_groups=1):
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.setsockopt(socket.IPPROTO_IP, 49, all_groups)
    s.bind(("", port))
    s.settimeout(0)
    if join:
        s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, MEMBER)
    return s
def seen(s):
    try:
        return s.recv(99)
    except BlockingIOError:
        return "none"
MEMBER = socket.inet_aton("224.0.2.1") + socket.inet_aton("127.0.0.1")
one = receiver(0)
port = one.getsockname()[1]
two, three = receiver(port), receiver(port, join=False, all_groups=0)
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.bind(("127.0.0.1", 0))
sender.sendto(b"first", ("224.0.2.1", port))
print(seen(one), seen(two), seen(three))
one.setsockopt(socket.IPPROTO_IP, socket.IP_DROP_MEMBERSHIP, MEMBER)
one.setsockopt(socket.IPPROTO_IP, 49, 0)
sender.sendto(b"second", ("224.0.2.1", port))
print(seen(one), seen(two), seen(three))
six = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
six.bind(("::", 0))
six.settimeout(0)
six.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, "ff01::7") + struct.pack("i", 1))
other = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
other.sendto(b"sixth", ("ff01::7", six.getsockname()[1], 0, 1))
print(seen(six), seen(six))
"""


def test_python_servers_and_clients(pilot: Pilot) -> None:
    out = pilot.output("--", "python3", "-c", PYTHON)
    assert out.splitlines() == ["30 echoes", "{'answer': 42}", "[0, 1, 4, 9]", "5000000", "b'abc' 1", "[(1, 'lo')]"]


PYTHON = """
import asyncio, http.server, multiprocessing, os, socket, threading, urllib.request
from multiprocessing.connection import Client, Listener

async def echo(reader, writer):
    while line := await reader.readline():
        writer.write(line.upper())
        await writer.drain()
    writer.close()

async def talk(port):
    reader, writer = await asyncio.open_connection("localhost", port)
    writer.write(b"hello\\n")
    good = await reader.readline() == b"HELLO\\n"
    writer.close()
    await writer.wait_closed()
    return good

async def main():
    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    print(sum(await asyncio.gather(*(talk(port) for _ in range(30)))), "echoes")

def square(number):
    return number * number

asyncio.run(main())
with Listener("/tmp/listener", "AF_UNIX") as listener:
    threading.Thread(target=lambda: listener.accept().send({"answer": 42})).start()
    print(Client("/tmp/listener").recv())
with multiprocessing.get_context("fork").Pool(2) as pool:
    print(pool.map(square, range(4)))
os.chdir("/tmp")
open("big", "wb").write(b"x" * 5_000_000)
http.server.SimpleHTTPRequestHandler.log_message = lambda *_: None
server = http.server.ThreadingHTTPServer(("", 0), http.server.SimpleHTTPRequestHandler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(len(urllib.request.urlopen(f"http://localhost:{server.server_port}/big").read()))
one, other = socket.socketpair()
socket.send_fds(one, [b"abc"], [1])
message, descriptors, _, _ = socket.recv_fds(other, 9, 3)
print(message, len(descriptors))
print(socket.if_nameindex())
"""


def test_ten_thousand_sockets_inside_each_other_end(pilot: Pilot) -> None:
    """Sockets that are only in each other's queues, and chains of them, go away with their last descriptor."""
    out = pilot.output("--", "python3", "-c", NESTED)
    assert out == "done\n"


NESTED = """
import socket
for _ in range(200):
    one, other = socket.socketpair()
    socket.send_fds(one, [b"x"], [other.fileno()])
    socket.send_fds(other, [b"x"], [one.fileno()])
    one.close()
    other.close()
watched, watcher = socket.socketpair()
held = watched
for _ in range(2000):
    one, other = socket.socketpair()
    socket.send_fds(one, [b"x"], [held.fileno()])
    held.close()
    one.close()
    held = other
held.close()
watcher.settimeout(10)
assert watcher.recv(1) == b""
print("done")
"""


def test_the_host_can_be_reached_if_wanted(pilot: Pilot) -> None:
    served: list[bytes] = []

    def serve(server: socket.socket) -> None:
        connection, _ = server.accept()
        with connection:
            served.append(connection.recv(100))
            connection.sendall(b"from the host")

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(30)
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        program = "import socket, sys; c = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); c.sendall(b'from inside'); print(c.recv(99))"
        port = str(server.getsockname()[1])
        out = pilot.output("--network", "host", "--", "python3", "-c", program, port)
        thread.join()
        refused = pilot.run("--", "python3", "-c", program, port)
    assert (out, served) == ("b'from the host'\n", [b"from inside"])
    assert b"Connection refused" in refused.stderr
