"""A light load generator: one process, one loop over raw sockets, the same bytes again and again.

`python -m bench.load PORT CONCURRENCY SECONDS < REQUEST` prints JSON: calls, seconds, milliseconds of the median and of one in a hundred.
"""

from __future__ import annotations

import json
import re
import select
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)\r\n")
_PATIENCE = 60.0


@dataclass(frozen=True)
class Load:
    """What came of it.

    Attributes:
        calls: Requests that were answered.
        seconds: How long it took.
        median: Milliseconds of a request.
        slowest: Milliseconds that 99 % of them stay below.
        others: Answers other than 200.
    """

    calls: int
    seconds: float
    median: float
    slowest: float
    others: int = 0

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.calls / self.seconds


class _Client:
    """One connection with one request at a time."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.sent = 0.0
        self._received = b""

    def send(self, request: bytes) -> None:
        """Sends the next one, which fits into the socket's buffer."""
        self.sent = time.perf_counter()
        self.socket.sendall(request)

    def receive(self) -> bytes | None:
        """An answer's status, once it is whole."""
        data = self.socket.recv(1 << 16)
        if not data:
            raise SystemExit("the server hung up")
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return None
        found = _LENGTH.search(self._received, 0, end + 2)
        if found is None or len(self._received) < end + 4 + int(found[1]):
            return None
        status, self._received = self._received[9:12], b""
        return status


def generate(port: int, concurrency: int, seconds: float, request: bytes) -> Load:
    """Sends as fast as answers come."""
    poll = select.epoll()
    clients = {}
    for _ in range(concurrency):
        client = _Client(port)
        clients[client.socket.fileno()] = client
        poll.register(client.socket.fileno(), select.EPOLLIN)
    times: list[float] = []
    others = 0
    started = time.perf_counter()
    until = started + seconds
    for client in clients.values():
        client.send(request)
    waiting = len(clients)
    while waiting:
        ready = poll.poll(_PATIENCE)
        if not ready:
            raise SystemExit("the server does not answer")
        for descriptor, _ in ready:
            client = clients[descriptor]
            status = client.receive()
            if status is None:
                continue
            now = time.perf_counter()
            times.append(now - client.sent)
            others += status != b"200"
            if now < until:
                client.send(request)
            else:
                # The server may hang up on whoever asks no more.
                poll.unregister(descriptor)
                waiting -= 1
    times.sort()
    spent = time.perf_counter() - started
    return Load(len(times), spent, 1000 * times[len(times) // 2], 1000 * times[min(len(times) - 1, len(times) * 99 // 100)], others)


def run(port: int, concurrency: int, seconds: float, request: bytes) -> Load:
    """The same in a process of its own, so that it does not wait for ours."""
    command = [sys.executable, "-m", "bench.load", str(port), str(concurrency), str(seconds)]
    answer = subprocess.run(command, input=request, capture_output=True, check=False, timeout=seconds + 2 * _PATIENCE)
    if answer.returncode != 0:
        raise RuntimeError(answer.stderr.decode().strip().splitlines()[-1])
    return Load(**json.loads(answer.stdout))


if __name__ == "__main__":
    result = generate(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.stdin.buffer.read())
    print(json.dumps(vars(result)))
