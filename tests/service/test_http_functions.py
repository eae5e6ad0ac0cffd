"""Functions that are HTTP servers: the container contract, and the unmodified `functions-framework` and `cloudevents`."""

from __future__ import annotations

import base64
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from typing import Any

import pytest
from aws_client import connected, zipped
from cloudevents.conversion import to_binary, to_structured
from cloudevents.http import CloudEvent
from harness import eventually
from running_service import Service
from vendored import vendored

SERVER = """
import http.server, json, os, signal, sys, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path.startswith("/sleep"):
            time.sleep(float(self.path.partition("=")[2]))
        if self.path == "/exit":
            os._exit(3)
        if self.path == "/stream":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for number in range(3):
                self.wfile.write(b"1\\r\\n%d\\r\\n" % number)
                time.sleep(0.05)
            self.wfile.write(b"0\\r\\n\\r\\n")
            return
        names = ("PORT", "K_SERVICE", "K_REVISION", "COLOUR")
        told = {"path": self.path, "method": self.command, "body": body.decode(), "env": {name: os.environ.get(name) for name in names},
                "headers": {name.lower(): value for name, value in self.headers.items()}, "pid": os.getpid()}
        answer = json.dumps(told).encode()
        self.send_response(418 if self.path == "/teapot" else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_POST = do_PUT = do_GET

    def log_message(self, text, *values):
        print(text % values, flush=True)

def end(*_):
    print("told to end", flush=True)
    sys.exit(0)

signal.signal(signal.SIGTERM, end)
print("starting", flush=True)
http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""


def deploy(service: Service, name: str, files: dict[str, str | bytes], **more: Any) -> dict[str, Any]:
    given = {"name": name, "contract": "http", "code": base64.b64encode(zipped(files)).decode(), "public": True, **more}
    status, made = service.request("POST", "/v1/functions", given)
    assert status == 200, made
    return dict(made)


def asked(
    service: Service, path: str, method: str = "GET", body: bytes | None = None, headers: dict[str, str] | None = None
) -> tuple[int, bytes]:
    request = urllib.request.Request(service.url + path, body, headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=200) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_server_of_ones_own(service: Service) -> None:
    made = deploy(
        service, "own", {"server.py": SERVER}, command=["python3", "server.py"], env={"COLOUR": "blue"}, timeout=20, concurrency=8
    )
    assert (made["contract"], made["concurrency"]) == ("http", 8)
    assert made["url"].startswith("http://")
    status, text = asked(service, made["path"] + "some%20path?a=1", "PUT", b"hello", {"X-API-Key": service.key, "X-Own": "1"})
    assert status == 200
    told = json.loads(text)
    assert (told["path"], told["method"], told["body"]) == ("/some%20path?a=1", "PUT", "hello")
    assert told["env"] == {"PORT": "8080", "K_SERVICE": "own", "K_REVISION": "own-latest", "COLOUR": "blue"}
    assert told["headers"]["x-own"] == "1"
    assert "x-api-key" not in told["headers"]
    assert asked(service, made["path"] + "teapot")[0] == 418
    assert asked(service, made["path"] + "stream") == (200, b"012")
    # Several requests at a time go to one instance.
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda: results.append(json.loads(asked(service, made["path"] + "sleep?s=0.5")[1])["pid"]))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert len(results) == 8
    status, called = service.request("POST", "/v1/functions/own/invoke", {"n": 1})
    assert (status, called["error"], json.loads(called["result"]["body"])) == (200, None, {"n": 1})
    assert connected(service).invoke(FunctionName="own", Payload=b"{}")["StatusCode"] == 200
    assert asked(service, made["path"] + "exit")[0] == 502
    # A request that comes before the end is noticed can still be the dead one's.
    eventually(lambda: asked(service, made["path"])[0] == 200)
    deploy(service, "own", {"server.py": SERVER}, command=["python3", "server.py"])
    deadline = time.monotonic() + 90
    while "told to end" not in text_of(service, "own"):
        assert time.monotonic() < deadline, text_of(service, "own")
        time.sleep(0.1)
    assert service.request("DELETE", "/v1/functions/own")[0] == 204
    assert asked(service, made["path"])[0] == 404


def text_of(service: Service, name: str) -> str:
    return "".join(each["text"] for each in service.request("GET", f"/v1/functions/{name}/log")[1]["entries"])


def test_deadlines_keys_and_programs_that_fail(service: Service) -> None:
    made = deploy(service, "slow", {"server.py": SERVER}, command=["python3", "server.py"], timeout=1, public=False)
    assert asked(service, made["path"])[0] == 403
    key = {"X-API-Key": service.key}
    assert asked(service, made["path"], headers=key)[0] == 200
    status, text = asked(service, made["path"] + "sleep?s=30", headers=key)
    assert (status, b"within 1 s" in text) == (504, True)
    assert asked(service, made["path"], headers=key)[0] == 200
    broken = deploy(service, "broken", {"server.py": "raise SystemExit(7)"}, command=["python3", "server.py"])
    assert asked(service, broken["path"])[0] == 502
    for wrong, field in (
        ({"contract": "http"}, "code"),
        ({"contract": "events", "code": "eA==", "handler": "a.b", "concurrency": 2}, "contract"),
        ({"contract": "events", "code": "eA=="}, "handler"),
        ({"contract": "http", "code": "?"}, "code"),
        ({"contract": "http", "code": "eA==", "memory_mb": 1}, "memory_mb"),
    ):
        status, error = service.request("POST", "/v1/functions", {"name": "wrong", **wrong})
        assert (status, error["error"]["field"]) == (400, field)
    for name in ("slow", "broken"):
        service.request("DELETE", f"/v1/functions/{name}")


FRAMEWORK = """
import functions_framework

@functions_framework.http
def hello(request):
    return f"hello {request.args.get('name')} at {request.path}"

@functions_framework.cloud_event
def event(event):
    print("event", event["id"], event["type"], event.data, flush=True)
"""


def test_the_real_functions_framework(service: Service) -> None:
    found = shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin") or "python3"
    version = subprocess.run([found, "-c", "import sys; print(sys.version_info[:2])"], capture_output=True, text=True, check=True).stdout
    if version.strip() != str(sys.version_info[:2]):
        pytest.skip(f"the host's python3 is {version.strip()}, for which the packages of {sys.version_info[:2]} are not made")
    files: dict[str, str | bytes] = {**vendored("functions-framework"), "main.py": FRAMEWORK}
    made = deploy(service, "hello", files, target="hello", memory_mb=512, concurrency=4)
    assert asked(service, made["path"] + "x?name=you") == (200, b"hello you at /x")
    made = deploy(service, "event", files, target="event", signature="cloudevent", memory_mb=512)
    event = CloudEvent({"type": "com.example.made", "source": "test", "id": "b-1"}, {"n": "binary"})
    for convert in (to_binary, to_structured):
        headers, body = convert(event)
        status, text = asked(service, made["path"], "POST", body if isinstance(body, bytes) else body.encode(), dict(headers))
        assert status == 200, text
    log = text_of(service, "event")
    assert log.count("event b-1 com.example.made {'n': 'binary'}") == 2, log
    # What is none is refused by the framework itself.
    assert asked(service, made["path"], "POST", b"{}", {"Content-Type": "application/json"})[0] == 400
    for name in ("hello", "event"):
        service.request("DELETE", f"/v1/functions/{name}")


def test_clients_that_hang_up(service: Service) -> None:
    made = deploy(service, "left", {"server.py": SERVER.replace("range(3)", "range(600)")}, command=["python3", "server.py"], timeout=60)
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", service.port), timeout=120) as connection:
            connection.sendall(f"GET {made['path']}stream HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert connection.recv(4096)
        # The program is still at it: another instance serves.
        assert asked(service, made["path"])[0] == 200
    deadline = time.monotonic() + 90
    while service.request("GET", "/v1/service")[1]["sandboxes"] > 1:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    service.request("DELETE", "/v1/functions/left")


def test_functions_are_there_after_a_restart(own_service: Service) -> None:
    service = own_service
    made = deploy(service, "stays", {"server.py": SERVER}, command=["python3", "server.py"])
    client = connected(service)
    archive = zipped({"app.py": "def handler(event, context):\n    print('kept')\n    return context.function_version\n"})
    client.create_function(
        FunctionName="event", Runtime="python3.11", Handler="app.handler", Role="any", Timeout=20, Code={"ZipFile": archive}, Publish=True
    )
    client.create_alias(FunctionName="event", Name="live", FunctionVersion="1")
    url = client.create_function_url_config(FunctionName="event", Qualifier="live", AuthType="NONE")
    for function, given in (("stays", {}), ("event", {"Qualifier": "live"})):
        assert client.invoke(FunctionName=function, **given)["StatusCode"] == 200
    time.sleep(0.5)  # Logs are written five times a second.
    service.stop(signal.SIGKILL)
    service.start()
    assert asked(service, made["path"])[0] == 200
    assert client.invoke(FunctionName="event", Qualifier="live")["Payload"].read() == b'"1"'
    assert client.get_function_url_config(FunctionName="event", Qualifier="live") | {"ResponseMetadata": 0} == {
        **{name: value for name, value in url.items() if name != "ResponseMetadata"},
        "LastModifiedTime": url["CreationTime"],
        "ResponseMetadata": 0,
    }
    assert text_of(service, "event").count("kept") == 2
    for name in ("stays", "event"):
        client.delete_function(FunctionName=name)


def test_logs_go_on_where_they_were_read(service: Service) -> None:
    handler = "def handler(event, context):\n    print('line', event['n'], 'x' * event.get('long', 0))\n"
    archive = base64.b64encode(zipped({"app.py": handler})).decode()
    assert service.request("POST", "/v1/functions", {"name": "writes", "code": archive, "handler": "app.handler"})[0] == 200
    position = service.request("GET", "/v1/functions/writes/log")[1]["next"]
    for number in range(3):
        assert service.request("POST", "/v1/functions/writes/invoke", {"n": number})[1]["error"] is None
        status, log = service.request("GET", f"/v1/functions/writes/log?after={position}&wait=10")
        assert status == 200
        assert f"line {number}" in "".join(each["text"] for each in log["entries"])
        assert log["next"] > position
        position = log["next"]
    assert "line 1" in service.request("POST", "/v1/functions/writes/invoke", {"n": 1})[1]["log"]
    # The oldest of it goes.
    for number in range(60):
        service.request("POST", "/v1/functions/writes/invoke", {"n": number, "long": 500_000})
    kept = sum(file.stat().st_size for file in (service.directory / "data" / "function-logs").rglob("writes/*.log"))
    assert kept <= 5 * (4 << 20)
    newest = service.request("GET", "/v1/functions/writes/log?limit=3")[1]["entries"]
    assert "REPORT" in newest[-1]["text"]
    assert service.request("GET", "/v1/functions/absent/log")[0] == 404
    service.request("DELETE", "/v1/functions/writes")
    assert not list((service.directory / "data" / "function-logs").rglob("writes"))
