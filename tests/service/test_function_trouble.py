"""Functions that misbehave, callers that go, crowds: each gets its documented error, and nothing is left over."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aws_client import call, connected, create, zipped
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from running_service import PILOT, Service

TROUBLE = """
import os, sys, time
def handler(event, context):
    what = event.get("do")
    if what == "never":
        time.sleep(1000)
    if what == "exit":
        os._exit(3)
    if what == "signal":
        os.kill(os.getpid(), 9)
    if what == "daemon" and os.fork() == 0:
        os.setsid()
        while True:
            time.sleep(1000)
    if what == "print":
        for _ in range(event["mib"]):
            sys.stdout.write("x" * (1 << 20))
    if what == "sleep":
        time.sleep(event["for"])
    return "ok"
"""
STREAMING = """#!/usr/bin/python3
import http.client, os, time
connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
base = "/2018-06-01/runtime/invocation/"
while True:
    connection.request("GET", base + "next")
    answer = connection.getresponse()
    answer.read()
    connection.putrequest("POST", base + answer.headers["Lambda-Runtime-Aws-Request-Id"] + "/response")
    connection.putheader("Lambda-Runtime-Function-Response-Mode", "streaming")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    while True:
        connection.send(b"10000\\r\\n" + bytes(0x10000) + b"\\r\\n")
"""
HOSTILE = """#!/usr/bin/python3
import os, socket, sys
host, _, port = os.environ["AWS_LAMBDA_RUNTIME_API"].partition(":")
base = b"/2018-06-01/runtime/"
def connected():
    return socket.create_connection((host, int(port)), timeout=120)
def ended(data):
    connection = connected()
    try:
        connection.sendall(data)
        while connection.recv(65536):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        sys.exit(9)
ended(b"no http at all\\r\\n\\r\\n")
ended(b"GET /x HTTP/1.1\\r\\nX: " + b"y" * 1000000)
ended(b"GET %binvocation/next HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n" % base * 2)
answers = connected()
for path in (b"nothing", b"invocation/unknown/response", b"invocation/unknown/error", b"init/unknown"):
    answers.sendall(b"POST %b%b HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 2\\r\\n\\r\\n{}" % (base, path))
    if answers.recv(65536)[9:12] not in (b"400", b"404"):
        sys.exit(8)
many = [connected() for _ in range(15)]
for each in many:
    each.sendall(b"GET %binvocation/next HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n" % base)
sys.exit(7)
"""


class Counts:
    """What a service has, apart from what it is asked."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self.before = self.now()

    def now(self) -> dict[str, float]:
        assert self._service.process is not None
        _, text = self._service.request("GET", "/metrics")
        names = ("cloudpilot_tasks", "cloudpilot_function_calls", "cloudpilot_function_instances", "cloudpilot_sandboxes")
        found = {name: float(re.search(rf"(?m)^{name} (\S+)$", text.decode())[1]) for name in names}  # type: ignore[index]
        return {
            **found,
            "descriptors": len(os.listdir(f"/proc/{self._service.process.pid}/fd")),
            "left": len(self._service.sandboxes_left()),
        }

    def are_as_before(self) -> None:
        eventually(lambda: all(value <= self.before[name] for name, value in self.now().items()), lambda: f"{self.before} {self.now()}")


def eventually(condition: Callable[[], bool], what: Callable[[], str] = lambda: "it did not happen in time") -> None:
    deadline = time.monotonic() + 90
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


def signed(service: Service, path: str, payload: bytes, key: str | None = None) -> bytes:
    """A request as it goes over the wire."""
    _, pair = service.request("GET", "/v1/credentials", key=key)
    request = AWSRequest("POST", service.url + path, {"Host": f"127.0.0.1:{service.port}"}, payload)
    SigV4Auth(Credentials(pair["access_key_id"], pair["secret_access_key"]), "lambda", "local").add_auth(request)
    headers = "".join(f"{name}: {value}\r\n" for name, value in request.headers.items())
    return f"POST {path} HTTP/1.1\r\n{headers}Content-Length: {len(payload)}\r\n\r\n".encode() + payload


def sent(service: Service, data: bytes) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", service.port), timeout=120)
    connection.sendall(data)
    return connection


def answer_of(connection: socket.socket) -> bytes:
    """A whole answer."""
    received = b""
    while (end := received.find(b"\r\n\r\n")) < 0 or len(received) < end + 4 + int(re.search(rb"(?i)content-length: (\d+)", received)[1]):  # type: ignore[index]
        piece = connection.recv(65536)
        assert piece, received
        received += piece
    connection.close()
    return received


def memory_mib(service: Service) -> float:
    assert service.process is not None
    [line] = [each for each in Path(f"/proc/{service.process.pid}/status").read_text().splitlines() if each.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def test_what_a_program_does_to_its_call(own_service: Service) -> None:
    client = connected(own_service)
    create(client, "first", zipped({"app.py": TROUBLE}))
    assert call(client, "first", {})[0] == "ok"
    client.delete_function(FunctionName="first")
    eventually(lambda: own_service.sandboxes_left() == [])
    counts = Counts(own_service)
    create(client, "trouble", zipped({"app.py": TROUBLE}), Timeout=3)
    for what, kind in (("never", "Sandbox.Timedout"), ("exit", "Runtime.ExitError"), ("signal", "Runtime.ExitError")):
        result, answer = call(client, "trouble", {"do": what})
        assert (result["errorType"], answer["FunctionError"]) == (kind, "Unhandled"), result
        assert call(client, "trouble", {})[0] == "ok"
    # What a program leaves running is no obstacle to its calls, and ends with its instance.
    for _ in range(3):
        assert call(client, "trouble", {"do": "daemon"})[0] == "ok"
    assert len(own_service.sandboxes_left()) == 1
    client.delete_function(FunctionName="trouble")
    counts.are_as_before()


def test_an_instance_that_is_killed_from_outside(own_service: Service) -> None:
    client = connected(own_service)
    create(client, "killed", zipped({"app.py": TROUBLE}))
    assert call(client, "killed", {})[0] == "ok"
    subprocess.run([PILOT, "kill", "--all"], check=True, timeout=120, env=own_service.environment, capture_output=True)
    eventually(lambda: call(client, "killed", {})[0] == "ok")
    assert len(own_service.sandboxes_left()) == 1
    client.delete_function(FunctionName="killed")
    eventually(lambda: own_service.sandboxes_left() == [])


def test_a_flood_of_output_is_heard_and_not_kept(own_service: Service) -> None:
    client = connected(own_service)
    create(client, "loud", zipped({"app.py": TROUBLE}), Timeout=50)
    assert call(client, "loud", {"do": "print", "mib": 1})[0] == "ok"
    before = memory_mib(own_service)
    result, answer = call(client, "loud", {"do": "print", "mib": 256}, LogType="Tail")
    assert result == "ok"
    assert len(answer["LogResult"]) <= 4 * (4096 + 2) // 3 + 4
    assert memory_mib(own_service) < before + 64
    written = sum(path.stat().st_size for path in (own_service.directory / "data" / "logs").rglob("*") if path.is_file())
    assert written < 64 << 20
    client.delete_function(FunctionName="loud")


def test_a_caller_who_hangs_up(own_service: Service) -> None:
    client = connected(own_service)
    create(client, "flow", zipped({"bootstrap": STREAMING}, 0o755), Runtime="provided", Handler="any", Timeout=50)
    create(client, "plain", zipped({"app.py": TROUBLE}))
    assert call(client, "plain", {})[0] == "ok"
    counts = Counts(own_service)
    before = memory_mib(own_service)
    path = "/2021-11-15/functions/flow/response-streaming-invocations"
    for _ in range(2):
        connection = sent(own_service, signed(own_service, path, b"{}"))
        received = connection.recv(65536)
        assert received.startswith(b"HTTP/1.1 200")
        while len(received) < 300_000:
            received += connection.recv(65536)
        # It does not read on for a while: the program waits rather than the service's memory grows.
        time.sleep(0.5)
        assert memory_mib(own_service) < before + 64
        connection.close()
        counts.are_as_before()
    # Whoever leaves a plain call has it made all the same, as with Lambda; its instance serves the next.
    sent(own_service, signed(own_service, "/2015-03-31/functions/plain/invocations", b'{"do":"sleep","for":0.5}')).close()
    assert call(client, "plain", {})[0] == "ok"
    eventually(lambda: Counts(own_service).before["cloudpilot_function_calls"] == 0)
    for name in ("flow", "plain"):
        client.delete_function(FunctionName=name)
    eventually(lambda: own_service.sandboxes_left() == [])


def test_a_program_that_abuses_the_runtime_interface(own_service: Service) -> None:
    client = connected(own_service)
    create(client, "first", zipped({"app.py": TROUBLE}))
    assert call(client, "first", {})[0] == "ok"
    client.delete_function(FunctionName="first")
    eventually(lambda: own_service.sandboxes_left() == [])
    counts = Counts(own_service)
    create(client, "hostile", zipped({"bootstrap": HOSTILE}, 0o755), Runtime="provided", Handler="any", Timeout=30)
    for _ in range(3):
        result, _ = call(client, "hostile", {})
        assert result["errorType"] == "Runtime.ExitError"
        # That it got to its end: 8 and 9 are what it saw and should not have seen.
        assert result["errorMessage"].endswith("exit status 7"), result
    client.delete_function(FunctionName="hostile")
    counts.are_as_before()


def test_a_crowd_against_a_limit(own_service: Service) -> None:
    _, made = own_service.request("POST", "/v1/projects", {"name": "crowd"})
    assert made["name"] == "crowd"
    _, key = own_service.request("POST", "/v1/keys", {"name": "crowd", "role": "user", "project": "crowd"})
    _, pair = own_service.request("GET", "/v1/credentials", key=key["key"])
    crowd, quiet = connected(own_service, pair), connected(own_service)
    create(crowd, "busy", zipped({"app.py": TROUBLE}), Timeout=30)
    create(quiet, "quiet", zipped({"app.py": TROUBLE}))
    assert call(quiet, "quiet", {})[0] == "ok"
    crowd.put_function_concurrency(FunctionName="busy", ReservedConcurrentExecutions=3)
    request = signed(own_service, "/2015-03-31/functions/busy/invocations", b'{"do":"sleep","for":6}', key["key"])
    connections = [sent(own_service, request) for _ in range(300)]
    # Others are answered while the crowd waits.
    assert call(quiet, "quiet", {})[0] == "ok"
    statuses = []
    for connection in connections:
        answer = answer_of(connection)
        statuses.append(answer[9:12])
        if answer[9:12] == b"429":
            assert b"TooManyRequestsException" in answer
            assert b"ReservedFunctionConcurrentInvocationLimitExceeded" in answer
    assert (statuses.count(b"200"), statuses.count(b"429")) == (3, 297)
    crowd.delete_function(FunctionName="busy")
    quiet.delete_function(FunctionName="quiet")
    eventually(lambda: own_service.sandboxes_left() == [])


def test_memory_goes_to_those_who_are_called(own_service: Service) -> None:
    own_service.stop()
    own_service.options = ("--function-memory", "180m")
    own_service.start()
    client = connected(own_service)
    names = [f"hungry{number}" for number in range(5)]
    for name in names:
        create(client, name, zipped({"app.py": TROUBLE}), MemorySize=256, Timeout=30)
        assert call(client, name, {})[0] == "ok"
    # Each had its turn; those that waited longest made room.
    eventually(lambda: 1 <= len(own_service.sandboxes_left()) < len(names))
    path = "/2015-03-31/functions/{}/invocations"
    connections = [sent(own_service, signed(own_service, path.format(name), b'{"do":"sleep","for":5}')) for name in names]
    answers = [answer_of(connection) for connection in connections]
    # Whoever serves a call is not ended for the next one, which hears why it has to wait.
    statuses = [answer[9:12] for answer in answers]
    assert set(statuses) == {b"200", b"429"}, answers
    assert all(b'"ok"' in answer for answer in answers if answer[9:12] == b"200"), answers
    assert all(b"The host has no memory for another instance" in answer for answer in answers if answer[9:12] == b"429")
    for name in names:
        client.delete_function(FunctionName=name)
    eventually(lambda: own_service.sandboxes_left() == [])


@pytest.mark.timeout(360)
def test_no_accepted_call_is_lost_whenever_the_service_dies(own_service: Service) -> None:
    client = connected(own_service)
    create(client, "later", zipped({"app.py": "def handler(event, context):\n    return event\n"}))
    # What follows from a call's end is in the store when the call is not any more, and stays there: nobody may call this function.
    witness = create(client, "witness", zipped({"app.py": TROUBLE}))["FunctionArn"]
    client.put_function_concurrency(FunctionName="witness", ReservedConcurrentExecutions=0)
    client.put_function_event_invoke_config(FunctionName="later", DestinationConfig={"OnSuccess": {"Destination": witness}})
    accepted = 0
    for pause in (0.0, 0.3, 1.0):
        for _ in range(12):
            client.invoke(FunctionName="later", InvocationType="Event", Payload=json.dumps({"number": accepted}).encode())
            accepted += 1
        time.sleep(pause)
        own_service.stop(signal.SIGKILL)
        own_service.start()

    def waiting(name: str) -> list[Any]:
        with sqlite3.connect(own_service.directory / "data" / "service.db") as store:
            rows = store.execute("SELECT value FROM entries WHERE key LIKE 'events/%'").fetchall()
        values = [json.loads(row[0]) for row in rows]
        return [json.loads(base64.b64decode(each["payload"])) for each in values if each["function"] == name]

    eventually(lambda: waiting("later") == [])
    assert {each["requestPayload"]["number"] for each in waiting("witness")} == set(range(accepted))
    for name in ("later", "witness"):
        client.delete_function(FunctionName=name)
    eventually(lambda: own_service.sandboxes_left() == [])


@pytest.mark.parametrize(
    ("payload", "status", "kind"),
    [
        (b"{", 400, b"InvalidRequestContentException"),
        (b"[" * 100_000, 400, b"InvalidRequestContentException"),
        (b'"' + b"x" * (6 << 20) + b'"', 413, b"RequestTooLargeException"),
        (b"\xff\xfe", 400, b"InvalidRequestContentException"),
    ],
)
def test_bodies_that_are_not_right(service: Service, payload: bytes, status: int, kind: bytes) -> None:
    client = connected(service)
    name = f"strict{status}{len(payload)}"
    create(client, name, zipped({"app.py": TROUBLE}))
    connection = sent(service, signed(service, f"/2015-03-31/functions/{name}/invocations", payload))
    answer = answer_of(connection)
    assert int(answer[9:12]) == status
    assert kind in answer
    client.delete_function(FunctionName=name)


def test_requests_that_are_broken_off(service: Service) -> None:
    counts = Counts(service)
    for data in (b"POST /2015-03-31/functions/x/invocations HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc", b"\x00\xff" * 100):
        for _ in range(20):
            connection = sent(service, data)
            connection.close()
    counts.are_as_before()


def test_answers_are_the_routers(service: Service) -> None:
    """The way past the router answers as the router would."""
    statuses = [
        (method, name, service.request(method, f"/2015-03-31/functions/{name}/invocations", b"{}")[0])
        for method in ("POST", "PUT")
        for name in ("nothing", "a%2Fb", "x/y", "")
    ]
    assert statuses == [
        ("POST", "nothing", 403),
        ("POST", "a%2Fb", 404),
        ("POST", "x/y", 404),
        ("POST", "", 404),
        ("PUT", "nothing", 405),
        ("PUT", "a%2Fb", 404),
        ("PUT", "x/y", 404),
        ("PUT", "", 404),
    ]
