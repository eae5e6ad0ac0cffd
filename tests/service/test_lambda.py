"""AWS Lambda's API with the unmodified `boto3` and `awslambdaric`."""

from __future__ import annotations

import base64
import io
import json
import shutil
import stat
import subprocess
import sysconfig
import threading
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
from aws_client import call, connected, create, zipped
from botocore.exceptions import ClientError
from running_service import Service

HANDLER = """
import os, sys, time
calls = 0
def handler(event, context):
    global calls
    calls += 1
    print("hello from", context.aws_request_id)
    what = event.get("do")
    if what == "fail":
        raise ValueError("as asked")
    if what == "sleep":
        time.sleep(event["for"])
    if what == "exit":
        os._exit(3)
    if what == "large":
        return "x" * (7 << 20)
    if what == "chatter":
        sys.stdout.write("y" * (3 << 20))
    return {"event": event, "calls": calls, "env": os.environ.get("COLOUR"), "left": context.get_remaining_time_in_millis(), "name": context.function_name}
"""


@pytest.fixture
def client(service: Service) -> Any:
    return connected(service)


def test_a_functions_life(client: Any) -> None:
    made = create(client, "life", zipped({"app.py": HANDLER}), Environment={"Variables": {"COLOUR": "blue"}})
    assert (made["FunctionName"], made["State"], made["MemorySize"]) == ("life", "Active", 128)
    result, answer = call(client, "life", {"a": [1, "ä"]}, LogType="Tail")
    assert result["event"] == {"a": [1, "ä"]}
    assert (result["calls"], result["env"], result["name"]) == (1, "blue", "life")
    assert 0 < result["left"] <= 20_000
    assert answer["StatusCode"] == 200
    assert answer["ExecutedVersion"] == "$LATEST"
    log = base64.b64decode(answer["LogResult"]).decode()
    assert "hello from" in log
    assert "REPORT RequestId" in log
    assert call(client, "life", {})[0]["calls"] == 2
    assert [each["FunctionName"] for each in client.list_functions()["Functions"]] == ["life"]
    assert client.get_function(FunctionName=made["FunctionArn"])["Configuration"]["CodeSha256"] == made["CodeSha256"]
    client.update_function_configuration(FunctionName="life", Environment={"Variables": {"COLOUR": "red"}})
    assert call(client, "life", {})[0]["env"] == "red"
    client.update_function_code(FunctionName="life", ZipFile=zipped({"app.py": "def handler(event, context):\n    return 'new'"}))
    assert call(client, "life", {})[0] == "new"
    assert client.invoke(FunctionName="life", InvocationType="DryRun")["StatusCode"] == 204
    with pytest.raises(client.exceptions.ResourceConflictException):
        create(client, "life", zipped({"app.py": HANDLER}))
    client.delete_function(FunctionName="life")
    for attempt in (client.get_function, client.invoke, client.delete_function):
        with pytest.raises(client.exceptions.ResourceNotFoundException):
            attempt(FunctionName="life")


def test_functions_that_fail(client: Any) -> None:
    create(client, "failing", zipped({"app.py": HANDLER}), Timeout=2)
    result, answer = call(client, "failing", {"do": "fail"}, LogType="Tail")
    assert answer["FunctionError"] == "Unhandled"
    assert (result["errorType"], result["errorMessage"]) == ("ValueError", "as asked")
    assert "hello from" in base64.b64decode(answer["LogResult"]).decode()
    result, answer = call(client, "failing", {"do": "sleep", "for": 30})
    assert "Task timed out after 2.00 seconds" in result["errorMessage"]
    result, answer = call(client, "failing", {"do": "exit"})
    assert (answer["FunctionError"], result["errorType"]) == ("Unhandled", "Runtime.ExitError")
    assert call(client, "failing", {"do": "large"})[0]["errorType"] == "Function.ResponseSizeTooLarge"
    result, answer = call(client, "failing", {"do": "chatter"}, LogType="Tail")
    assert len(base64.b64decode(answer["LogResult"])) == 4096
    assert call(client, "failing", {})[0]["event"] == {}
    create(client, "broken", zipped({"app.py": "import nothing_of_that_name"}))
    assert call(client, "broken", {})[0]["errorType"] == "Runtime.ImportModuleError"
    for name in ("failing", "broken"):
        client.delete_function(FunctionName=name)


def test_bad_archives_and_requests(client: Any) -> None:
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    bomb = zipped({"bomb": bytes(300 << 20)})
    twice = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(twice, "w") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("same", "1")
        archive.writestr("same", "2")
    # Says of itself that it is short; a file and a directory of one name; a name that no file system takes; more files than there may be.
    liar = bytearray(bomb)
    for mark, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        place = liar.index(mark) + offset
        liar[place : place + 4] = (1000).to_bytes(4, "little")
    odd = [bytes(liar), zipped({"a": "x", "a/b": "y"}), zipped({"n" * 300: "x"}), zipped({"a\\..\\b": "x"}), twice.getvalue()]
    for bad in (b"no archive", zipped({"../out.py": "x"}), zipped({"/etc/x": "x"}), zipped({}), buffer.getvalue(), bomb, *odd):
        with pytest.raises(client.exceptions.InvalidParameterValueException):
            create(client, "bad", bad)
    with pytest.raises(client.exceptions.InvalidParameterValueException):
        create(client, "bad", zipped({"app.py": HANDLER}), Runtime="cobol85")
    create(client, "strict", zipped({"app.py": HANDLER}))
    with pytest.raises(client.exceptions.InvalidRequestContentException):
        client.invoke(FunctionName="strict", Payload=b"{")
    with pytest.raises(client.exceptions.RequestTooLargeException):
        client.invoke(FunctionName="strict", Payload=json.dumps("x" * (6 << 20)))
    client.delete_function(FunctionName="strict")


def test_signatures_are_verified(service: Service, client: Any) -> None:
    _, pair = service.request("GET", "/v1/credentials")
    for wrong, kind in (
        ({"secret_access_key": "x" * 40}, "InvalidSignatureException"),
        ({"access_key_id": "CP" + "0" * 16}, "UnrecognizedClientException"),
    ):
        with pytest.raises(ClientError) as caught:
            connected(service, {**pair, **wrong}).list_functions()
        assert caught.value.response["Error"]["Code"] == kind
    assert service.request("GET", "/2015-03-31/functions")[0] == 403
    _, made = service.request("POST", "/v1/keys", {"name": "looker", "role": "read-only"})
    _, pair = service.request("GET", "/v1/credentials", key=made["key"])
    looker = connected(service, pair)
    assert looker.list_functions()["Functions"] == []
    with pytest.raises(ClientError) as caught:
        create(looker, "x", zipped({"app.py": HANDLER}))
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"


def test_asynchronous_calls(service: Service, client: Any) -> None:
    create(client, "later", zipped({"app.py": HANDLER}))
    assert client.invoke(FunctionName="later", InvocationType="Event", Payload=b'{"n":1}')["StatusCode"] == 202
    deadline = time.monotonic() + 90
    while call(client, "later", {})[0]["calls"] < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    client.delete_function(FunctionName="later")


def test_calls_at_once_are_served_by_several_instances(client: Any) -> None:
    create(client, "many", zipped({"app.py": HANDLER}))
    results: list[Any] = []
    started = time.monotonic()
    threads = [threading.Thread(target=lambda: results.append(call(client, "many", {"do": "sleep", "for": 0.3})[0])) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 16
    assert all("event" in each for each in results)
    assert time.monotonic() - started < 90
    client.delete_function(FunctionName="many")


def test_the_real_runtime_and_any_bootstrap(client: Any, tmp_path: Path) -> None:
    site = Path(sysconfig.get_paths()["purelib"])
    files: dict[str, str | bytes] = {"app.py": HANDLER}
    wanted = [
        *site.glob("awslambdaric/**/*.py"),
        *site.glob("simplejson/**/*.py"),
        *site.glob("snapshot_restore_py/**/*.py"),
        *site.glob("runtime_client*.so"),
    ]
    for path in wanted:
        files[str(path.relative_to(site))] = path.read_bytes()
    version = subprocess.run(
        [shutil.which("python3", path="/usr/local/bin:/usr/bin:/bin") or "python3", "-c", "import sys; print(sys.version_info[:2])"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    if version.strip() == str(tuple(map(int, sysconfig.get_python_version().split(".")))):
        create(client, "real", zipped(files))
        result, answer = call(client, "real", {"a": 1}, LogType="Tail")
        assert result["event"] == {"a": 1}
        assert "hello from" in base64.b64decode(answer["LogResult"]).decode()
        assert call(client, "real", {"do": "fail"})[0]["errorType"] == "ValueError"
        client.delete_function(FunctionName="real")
    bootstrap = """#!/usr/bin/python3
import http.client, os
connection = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    connection.request("GET", "/2018-06-01/runtime/invocation/next")
    response = connection.getresponse()
    event = response.read()
    connection.request("POST", f"/2018-06-01/runtime/invocation/{response.headers['Lambda-Runtime-Aws-Request-Id']}/response", event[::-1])
    connection.getresponse().read()
"""
    create(client, "own", zipped({"bootstrap": bootstrap}, 0o755), Runtime="provided.al2023", Handler="any")
    assert client.invoke(FunctionName="own", Payload=b'"abc"')["Payload"].read() == b'"cba"'
    client.delete_function(FunctionName="own")
