"""Sockets: unix, the internet's within a sandbox, and through the host when asked for."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from pathlib import Path

import pytest
from harness import Pilot

pytestmark = pytest.mark.timeout(120)


@pytest.mark.parametrize("options", [(), ("--network", "host")])
def test_calls_answer_as_on_the_host(pilot: Pilot, guests: Path, options: tuple[str, ...]) -> None:
    """Streams, packets, datagrams, descriptors in messages, TCP, UDP and timeouts: what the host's kernel answers to the same program."""
    expected = subprocess.run([guests / "sockets"], capture_output=True, check=True, timeout=30).stdout.decode()
    # Sockets tell who is at their other end.
    user = f"{os.getuid()}:{os.getgid()}"
    got = pilot.output(*options, "--user", user, "-v", f"{guests}:/guests:ro", "--", "/guests/sockets")
    assert got.splitlines() == expected.splitlines()


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
