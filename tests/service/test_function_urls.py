"""Addresses of functions: payload format 2.0, cookies, binary bodies, other origins, signatures."""

from __future__ import annotations

import base64
import http.client
import json
import urllib.parse
from typing import Any

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import pytest
from aws_client import connected, create, zipped
from running_service import Service

HANDLER = """
import base64, json
def handler(event, context):
    what = event["rawPath"].rpartition("/")[2]
    if what == "fail":
        raise ValueError("as asked")
    if what == "picture":
        return {"statusCode": 201, "headers": {"Content-Type": "image/x"}, "body": base64.b64encode(bytes(range(256))).decode(), "isBase64Encoded": True}
    if what == "cookies":
        return {"statusCode": 200, "cookies": ["a=1; Secure", "b=2"], "body": "ä"}
    if what == "malformed":
        return {"statusCode": 200, "headers": {"x": "a\\r\\nset-cookie: b=c"}}
    if what == "plain":
        return {"hello": 1}
    return {"statusCode": 200, "headers": {"X-Own": "yes"}, "body": json.dumps(event)}
"""


@pytest.fixture
def client(service: Service) -> Any:
    return connected(service)


def asked(service: Service, address: str, method: str = "GET", path: str = "/", body: bytes | None = None, **headers: str) -> Any:
    """A request to an address whose name leads nowhere: it is sent to the service."""
    connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=120)
    connection.putrequest(method, path, skip_host=True)
    connection.putheader("Host", urllib.parse.urlsplit(address).netloc)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    if body is not None:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    answer.content = answer.read()  # type: ignore[attr-defined]
    connection.close()
    return answer


def test_requests_and_answers(service: Service, client: Any) -> None:
    create(client, "site", zipped({"app.py": HANDLER}))
    made = client.create_function_url_config(FunctionName="site", AuthType="NONE")
    address = made["FunctionUrl"]
    with pytest.raises(client.exceptions.ResourceConflictException):
        client.create_function_url_config(FunctionName="site", AuthType="NONE")
    answer = asked(
        service,
        address,
        "POST",
        "/a%20b/c?x=1&x=2&y=%C3%A4",
        b'{"n":1}',
        Content_Type="application/json",
        Cookie="k=v; l=w",
        X_Api_Key=service.key,
    )
    assert answer.status == 200
    assert answer.headers["X-Own"] == "yes"
    event = json.loads(answer.content)
    assert (event["version"], event["routeKey"], event["rawPath"], event["rawQueryString"]) == (
        "2.0",
        "$default",
        "/a%20b/c",
        "x=1&x=2&y=%C3%A4",
    )
    assert event["queryStringParameters"] == {"x": "1,2", "y": "ä"}
    assert event["cookies"] == ["k=v", "l=w"]
    assert (event["body"], event["isBase64Encoded"]) == ('{"n":1}', False)
    context = event["requestContext"]
    assert (context["http"]["method"], context["http"]["path"]) == ("POST", "/a%20b/c")
    assert context["domainPrefix"] == urllib.parse.urlsplit(address).netloc.partition(".")[0]
    assert service.key not in answer.content.decode()
    binary = json.loads(asked(service, address, "PUT", "/", b"\xff\x00", Content_Type="application/octet-stream").content)
    assert (binary["body"], binary["isBase64Encoded"]) == (base64.b64encode(b"\xff\x00").decode(), True)
    picture = asked(service, address, path="/picture")
    assert (picture.status, picture.headers["Content-Type"], picture.content) == (201, "image/x", bytes(range(256)))
    cookies = asked(service, address, path="/cookies")
    assert cookies.headers.get_all("Set-Cookie") == ["a=1; Secure", "b=2"]
    assert cookies.content.decode() == "ä"
    plain = asked(service, address, path="/plain")
    assert (plain.headers["Content-Type"], json.loads(plain.content)) == ("application/json", {"hello": 1})
    for path in ("/fail", "/malformed"):
        failed = asked(service, address, path=path)
        assert failed.status == 502
        assert failed.headers["Set-Cookie"] is None
    assert asked(service, address, "HEAD", "/picture").content == b""
    assert asked(service, address, "POST", "/", bytes((6 << 20) + 1)).status == 413
    by_path = service.request("GET", f"/v1/function-urls/{context['apiId']}/some/plain")
    assert by_path == (200, {"hello": 1})
    client.delete_function(FunctionName="site")
    assert asked(service, address).status == 404


def test_other_origins(service: Service, client: Any) -> None:
    create(client, "shared", zipped({"app.py": HANDLER}))
    cors = {
        "AllowOrigins": ["https://one.example"],
        "AllowMethods": ["GET", "PUT"],
        "AllowHeaders": ["x-a"],
        "AllowCredentials": True,
        "MaxAge": 7,
    }
    address = client.create_function_url_config(FunctionName="shared", AuthType="NONE", Cors=cors)["FunctionUrl"]
    preflight = asked(service, address, "OPTIONS", Origin="https://one.example", Access_Control_Request_Method="PUT")
    assert preflight.status == 200
    assert preflight.headers["Access-Control-Allow-Methods"] == "GET,PUT"
    assert preflight.headers["Access-Control-Max-Age"] == "7"
    assert (
        asked(service, address, path="/plain", Origin="https://one.example").headers["Access-Control-Allow-Origin"] == "https://one.example"
    )
    assert asked(service, address, path="/plain", Origin="https://two.example").headers["Access-Control-Allow-Origin"] is None
    assert client.get_function_url_config(FunctionName="shared")["Cors"] == cors
    with pytest.raises(client.exceptions.InvalidParameterValueException):
        client.update_function_url_config(FunctionName="shared", Cors={"AllowMethods": ["BREW"]})
    client.delete_function(FunctionName="shared")


def test_addresses_that_ask_who_is_there(service: Service, client: Any) -> None:
    create(client, "private", zipped({"app.py": HANDLER}))
    client.publish_version(FunctionName="private")
    client.create_alias(FunctionName="private", Name="live", FunctionVersion="1")
    address = client.create_function_url_config(FunctionName="private", Qualifier="live", AuthType="AWS_IAM")["FunctionUrl"]
    with pytest.raises(client.exceptions.InvalidParameterValueException):
        client.create_function_url_config(FunctionName="private", Qualifier="1", AuthType="AWS_IAM")
    assert asked(service, address, path="/plain").status == 403
    assert asked(service, address, path="/plain", X_API_Key=service.key).status == 200
    assert asked(service, address, path="/plain", X_API_Key=service.key[:-1] + "x").status == 403
    _, pair = service.request("GET", "/v1/credentials")
    for secret, status in ((pair["secret_access_key"], 200), ("x" * 40, 403)):
        request = botocore.awsrequest.AWSRequest("POST", address + "who", data=b"x")
        botocore.auth.SigV4Auth(botocore.credentials.Credentials(pair["access_key_id"], secret), "lambda", "zz-local-1").add_auth(request)
        answer = asked(service, address, "POST", "/who", b"x", **dict(request.headers.items()))
        assert answer.status == status
        if status == 200:
            assert json.loads(answer.content)["requestContext"]["authorizer"]["iam"]["accountId"] == "000000000000"
    assert client.update_function_url_config(FunctionName="private", Qualifier="live", AuthType="NONE")["AuthType"] == "NONE"
    assert asked(service, address, path="/plain").status == 200
    assert len(client.list_function_url_configs(FunctionName="private")["FunctionUrlConfigs"]) == 1
    client.delete_alias(FunctionName="private", Name="live")
    assert asked(service, address, path="/plain").status == 404
    client.delete_function(FunctionName="private")


STREAMS = """#!/usr/bin/python3
import base64, json, os, socket, time, urllib.request
api = os.environ["AWS_LAMBDA_RUNTIME_API"]
base = f"http://{api}/2018-06-01/runtime/invocation/"
host, port = api.split(":")

def piece(data):
    return b"%x\\r\\n%b\\r\\n" % (len(data), data)

while True:
    with urllib.request.urlopen(base + "next") as response:
        event, number = json.load(response), response.headers["Lambda-Runtime-Aws-Request-Id"]
    fails = event.get("fails") or event.get("rawPath") == "/fails"
    connection = socket.create_connection((host, int(port)))
    web = "rawPath" in event
    kind = "application/vnd.awslambda.http-integration-response" if web else "text/plain"
    connection.sendall((f"POST /2018-06-01/runtime/invocation/{number}/response HTTP/1.1\\r\\nHost: {api}\\r\\nTransfer-Encoding: chunked\\r\\n"
        f"Lambda-Runtime-Function-Response-Mode: streaming\\r\\nContent-Type: {kind}\\r\\nConnection: close\\r\\n"
        "Trailer: Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body\\r\\n\\r\\n").encode())
    if web:
        head = json.dumps({"statusCode": 207, "headers": {"x-own": "yes"}, "cookies": ["a=b"]}).encode()
        connection.sendall(piece(head[:9]))
        connection.sendall(piece(head[9:] + bytes(8)))
    for number in range(3):
        connection.sendall(piece(f"part {number};".encode()))
        time.sleep(0.05)
    end = "0\\r\\n"
    if fails:
        body = base64.b64encode(json.dumps({"errorType": "Own", "errorMessage": "as asked"}).encode()).decode()
        end += f"Lambda-Runtime-Function-Error-Type: Own\\r\\nLambda-Runtime-Function-Error-Body: {body}\\r\\n"
    connection.sendall((end + "\\r\\n").encode())
    connection.recv(4096)
    connection.close()
"""


def test_streamed_answers(service: Service, client: Any) -> None:
    create(client, "streams", zipped({"bootstrap": STREAMS.replace("\\\\", "\\")}, 0o755), Runtime="provided.al2023")
    answer = client.invoke_with_response_stream(FunctionName="streams", Payload=b"{}", LogType="Tail")
    assert answer["ResponseStreamContentType"] == "application/vnd.amazon.eventstream"
    events = list(answer["EventStream"])
    parts = [each["PayloadChunk"]["Payload"] for each in events if "PayloadChunk" in each]
    assert b"".join(parts) == b"part 0;part 1;part 2;"
    assert "ErrorCode" not in events[-1]["InvokeComplete"]
    assert b"REPORT RequestId" in base64.b64decode(events[-1]["InvokeComplete"]["LogResult"])
    events = list(client.invoke_with_response_stream(FunctionName="streams", Payload=b'{"fails":1}')["EventStream"])
    assert events[-1]["InvokeComplete"]["ErrorCode"] == "Unhandled"
    assert json.loads(events[-1]["InvokeComplete"]["ErrorDetails"])["errorMessage"] == "as asked"
    assert client.invoke_with_response_stream(FunctionName="streams", InvocationType="DryRun")["StatusCode"] == 204
    with pytest.raises(client.exceptions.ResourceNotFoundException):
        client.invoke_with_response_stream(FunctionName="streams", Qualifier="7")
    address = client.create_function_url_config(FunctionName="streams", AuthType="NONE", InvokeMode="RESPONSE_STREAM")["FunctionUrl"]
    answer = asked(service, address, path="/x")
    assert (answer.status, answer.headers["X-Own"], answer.headers["Set-Cookie"]) == (207, "yes", "a=b")
    assert answer.content == b"part 0;part 1;part 2;"
    with pytest.raises(http.client.IncompleteRead):
        asked(service, address, path="/fails")
    # In one piece, too, if the address is asked for that.
    client.update_function_url_config(FunctionName="streams", InvokeMode="BUFFERED")
    answer = asked(service, address, path="/x")
    assert answer.status == 207
    assert answer.content == b"part 0;part 1;part 2;"
    client.delete_function(FunctionName="streams")
