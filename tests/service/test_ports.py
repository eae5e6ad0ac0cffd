"""Ports of sandboxes through the service: plain HTTP and WebSockets, by the host's name and by path."""

from __future__ import annotations

import http.client
import socket
import time
import urllib.request
from collections.abc import Iterator

import pytest
import websockets
from e2b import Sandbox
from running_service import Service, set_e2b
from websockets.sync.client import connect

SERVER = """
import http.server, os, time
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.path == "/slow":
            self.send_response(200); self.send_header("Transfer-Encoding", "chunked"); self.end_headers()
            for number in range(3):
                self.wfile.write(b"2\\r\\n%d\\n\\r\\n" % number); self.wfile.flush()
                while not os.path.exists("/tmp/go on"): time.sleep(0.01)
            self.wfile.write(b"0\\r\\n\\r\\n")
            return
        if self.path == "/rude":
            self.wfile.write(b"this is no HTTP\\r\\n\\r\\n"); self.close_connection = True
            return
        if self.path == "/keys":
            body = str(sorted(self.headers)).encode()
            self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
            return
        body = (self.path + " " + self.headers["Host"] + " " + str(self.headers["X-Forwarded-For"])).encode()
        self.send_response(200); self.send_header("Set-Cookie", "a=1"); self.send_header("Set-Cookie", "b=2")
        self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))[::-1]
        self.send_response(201); self.send_header("Content-Length", str(len(body))); self.end_headers(); self.wfile.write(body)
    def log_message(self, *_): pass
http.server.ThreadingHTTPServer(("127.0.0.1", 8080), Handler).serve_forever()
"""

ECHO = r"""
import base64, hashlib, socketserver, struct
class Echo(socketserver.StreamRequestHandler):
    def handle(self):
        path = self.rfile.readline().split()[1]
        while (line := self.rfile.readline().strip()):
            if line.lower().startswith(b"sec-websocket-key:"):
                key = line.split(b":")[1].strip() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key).digest())
        head = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
        self.wfile.write(head + accept + b"\r\n\r\n")
        while True:
            kind, length = self.rfile.read(2)
            length &= 127
            if length > 125:
                length = int.from_bytes(self.rfile.read(2 if length == 126 else 8), "big")
            mask, data = self.rfile.read(4), self.rfile.read(length)
            data = (int.from_bytes(data, "big") ^ int.from_bytes((mask * (length // 4 + 1))[:length], "big")).to_bytes(length, "big")
            if kind == 0x81:
                data = path + b" " + data[::-1]
            size = len(data)
            head = bytes([kind, size]) if size < 126 else struct.pack(">BBQ", kind, 127, size)
            self.wfile.write(head + data)
            if kind == 0x88:
                return
socketserver.ThreadingTCPServer(("127.0.0.1", 9090), Echo).serve_forever()
"""


@pytest.fixture(scope="module")
def sandbox(service: Service) -> Iterator[Sandbox]:
    with pytest.MonkeyPatch.context() as patch:
        set_e2b(service, patch)
        with Sandbox.create(timeout=600) as sandbox:
            sandbox.files.write("/tmp/server.py", SERVER)
            sandbox.commands.run("python3 /tmp/server.py", background=True, timeout=0)
            _wait(service, sandbox, 8080)
            yield sandbox


def _wait(service: Service, sandbox: Sandbox, port: int) -> None:
    deadline = time.monotonic() + 90
    while b"not open" in _get(service, sandbox.get_host(port), "/").read():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _get(service: Service, host: str, path: str) -> http.client.HTTPResponse:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=120)
    connection.request("GET", path, headers={"Host": host})
    return connection.getresponse()


def test_by_name_and_by_path(service: Service, sandbox: Sandbox) -> None:
    host = sandbox.get_host(8080)
    assert host == f"8080-{sandbox.sandbox_id}.localhost:{service.port}"
    response = _get(service, host, "/a%20b?c=d&e")
    assert response.read().decode() == f"/a%20b?c=d&e {host} 127.0.0.1"
    assert response.headers.get_all("Set-Cookie") == ["a=1", "b=2"]
    status, text = service.request("GET", f"/v1/sandboxes/{sandbox.sandbox_id}/ports/8080/x/y?q=1")
    assert status == 200
    assert text.startswith(b"/x/y?q=1 ")
    large = bytes(range(256)) * 8000
    assert service.request("POST", f"/v1/sandboxes/{sandbox.sandbox_id}/ports/8080/", large) == (201, large[::-1])


def test_keys_stay_outside(service: Service, sandbox: Sandbox) -> None:
    headers = {"Authorization": f"Bearer {service.key}", "X-Other": "1"}
    _, text = service.request("GET", f"/v1/sandboxes/{sandbox.sandbox_id}/ports/8080/keys", headers=headers)
    assert b"X-Other" in text.title()
    assert b"X-Api-Key" not in text.title()
    assert b"Authorization" not in text.title()
    url = f"{service.url}/v1/sandboxes/{sandbox.sandbox_id}/ports/8080/"
    with urllib.request.urlopen(url) as response:
        assert response.headers["Content-Security-Policy"].startswith("sandbox")


def test_answers_stream(service: Service, sandbox: Sandbox) -> None:
    response = _get(service, sandbox.get_host(8080), "/slow")
    assert response.read(2) == b"0\n"
    # Only now may the server say more.
    sandbox.files.write("/tmp/go on", "")
    assert response.read() == b"1\n2\n"


def test_refusals(service: Service, sandbox: Sandbox) -> None:
    response = _get(service, sandbox.get_host(81), "/")
    assert response.status == 502
    assert b"port is not open" in response.read()
    response = _get(service, f"8080-aaaaaaaaaaaa.localhost:{service.port}", "/")
    assert response.status == 502
    assert b"was not found" in response.read()
    response = _get(service, sandbox.get_host(8080), "/rude")
    assert response.status == 502
    assert b"did not answer in HTTP" in response.read()
    # What the sandbox listens on is not reached past the service.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", 9090), timeout=2)


def test_one_connection_leads_to_many_places(service: Service, sandbox: Sandbox) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=120)
    for path, host, start in (
        ("/1", sandbox.get_host(8080), b"/1 "),
        ("/metrics", "localhost", b"# HELP"),
        ("/2", sandbox.get_host(8080), b"/2 "),
    ):
        connection.request("GET", path, headers={"Host": host})
        assert connection.getresponse().read().startswith(start)


def test_websockets(service: Service, sandbox: Sandbox) -> None:
    sandbox.files.write("/tmp/echo.py", ECHO)
    sandbox.commands.run("python3 /tmp/echo.py", background=True, timeout=0)
    _wait(service, sandbox, 9090)
    raw = socket.create_connection(("127.0.0.1", service.port))
    with connect(f"ws://{sandbox.get_host(9090)}/by/name?x=1", sock=raw) as client:
        client.send("hello")
        assert client.recv() == "/by/name?x=1 olleh"
        client.send(bytes(1_000_000 - 100))
        assert client.recv() == bytes(1_000_000 - 100)
    with connect(f"ws://127.0.0.1:{service.port}/v1/sandboxes/{sandbox.sandbox_id}/ports/9090/path") as client:
        client.send("abc")
        assert client.recv() == "/path cba"
    with pytest.raises(websockets.InvalidStatus):
        connect(f"ws://127.0.0.1:{service.port}/v1/sandboxes/{sandbox.sandbox_id}/ports/9091/path")
    with pytest.raises(websockets.InvalidStatus):
        connect(f"ws://127.0.0.1:{service.port}/none")
