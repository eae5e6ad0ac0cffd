"""Nonsense sent to Lambda's API and to addresses of functions: each gets a refusal, none a fault, and the service goes on."""

from __future__ import annotations

import http.client
import json
import re
import socket
from typing import Any

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.loaders
import pytest
from aws_client import connected, create, zipped
from running_service import Service

BODIES = (
    b"", b"null", b"[]", b"7", b'"x"', b"{", b"\xff\xfe", b'{"a":' * 2000, b'{"FunctionName":null}', b'{"Environment":null,"Layers":null,"Code":null}',
    b'{"FunctionName":7,"Code":[],"Runtime":{},"Tags":[1],"Timeout":"3","MemorySize":1e400}',
    b'{"FunctionName":"x","Role":"r","Handler":"a.b","Runtime":"python3.11","Code":{"ZipFile":"AAAA"},"Environment":{"Variables":{"A":"\\ud800","B":"\\u0000"}}}',
    b'{"RoutingConfig":{"AdditionalVersionWeights":{"1":"NaN"}},"FunctionVersion":"99999999999999999999999999","Name":"a"}',
    b'{"ReservedConcurrentExecutions":99999999999999999999,"ProvisionedConcurrentExecutions":-1,"AuthType":"NONE","Cors":{"AllowOrigins":[7]}}',
    b'{"DestinationConfig":{"OnSuccess":{"Destination":"arn:aws:lambda:x"}},"Policy":"[]","Tags":{"\\ud800":"x"},"Content":{"ZipFile":"?"}}',
    b'{"Policy":"{\\"Statement\\":[7]}","StatementId":"a","Action":"lambda:*","Principal":"*"}',
)  # fmt: skip
NAMES = (
    "there",
    "absent",
    "there:$LATEST",
    "there:99999999999999999999999",
    "%00",
    "%F0%9F%90%8D",
    "a" * 300,
    "arn%3Aaws%3Alambda%3Ax%3A0%3Afunction%3Athere",
    "..",
)


class Sender:
    """Signed requests, as they are."""

    def __init__(self, service: Service) -> None:
        _, pair = service.request("GET", "/v1/credentials")
        self._service = service
        self._signer = botocore.auth.SigV4Auth(
            botocore.credentials.Credentials(pair["access_key_id"], pair["secret_access_key"]), "lambda", "x"
        )
        self._connection = http.client.HTTPConnection("127.0.0.1", service.port, timeout=120)

    def __call__(self, method: str, path: str, body: bytes) -> tuple[int, str | None, bytes]:
        request = botocore.awsrequest.AWSRequest(method, self._service.url + path, data=body)
        self._signer.add_auth(request)
        self._connection.request(method, path, body, dict(request.headers.items()))
        answer = self._connection.getresponse()
        return answer.status, answer.headers["X-Amzn-ErrorType"], answer.read()


@pytest.mark.timeout(600)
def test_bodies_and_names_that_are_none(service: Service) -> None:
    client = connected(service)
    create(client, "there", zipped({"app.py": "def handler(event, context):\n    return event\n"}))
    send = Sender(service)
    model = botocore.loaders.Loader().load_service_model("lambda", "service-2")
    for operation, about in model["operations"].items():
        method, uri = about["http"]["method"], about["http"]["requestUri"]
        tries = [(body, "absent") for body in BODIES] if method in ("POST", "PUT") else []
        if operation != "DeleteFunction":
            tries += [(body, "there") for body in BODIES if method in ("POST", "PUT")]
        tries += [(b"{}", name) for name in NAMES if method == "GET"]
        for body, name in tries:
            path = re.sub(r"\{(\w+)\}", name if "$" not in name else name.replace("$", "%24"), uri)
            status, kind, text = send(method, path, body)
            assert status < 500, (operation, body, name, text)
            if status >= 400 and name in ("there", "absent"):
                assert kind is not None, (operation, body, name, status, text)
                assert json.loads(text)["message"], (operation, body, name)
    for query in (
        "Marker=x",
        "Marker=LTE=",
        "MaxItems=0",
        "MaxItems=99999999999999999999",
        "Qualifier=%00",
        "Qualifier=$&FunctionVersion=x",
    ):
        for path in ("functions", "functions/there/versions", "functions/there/aliases", "functions/there"):
            status, _, text = send("GET", f"/2015-03-31/{path}?{query.replace('$', '%24')}", b"")
            assert status < 500, (query, path, text)
    client.delete_function(FunctionName="there")


def raw(service: Service, data: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", service.port), timeout=120) as connection:
        connection.sendall(data)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def test_requests_to_addresses_that_are_none(service: Service) -> None:
    client = connected(service)
    echo = "import json\ndef handler(event, context):\n    return {'statusCode': 200, 'body': json.dumps(event)}\n"
    create(client, "echo", zipped({"app.py": echo}))
    host = client.create_function_url_config(FunctionName="echo", AuthType="NONE", Cors={"AllowOrigins": ["*"]})["FunctionUrl"][
        7:-1
    ].encode()
    requests: list[tuple[bytes, bytes]] = [
        (b"GET /%ff%00/%2e%2e?a=%ff&a&=&&b=%00 HTTP/1.1", b""),
        (b"GET //double//slash?? HTTP/1.1", b""),
        (b"POST / HTTP/1.1", b"Content-Type: text/plain; charset=\xff\r\nX-Odd: \xe4\xf6\r\nContent-Length: 2\r\n"),
        (b"OPTIONS / HTTP/1.1", b"Origin: a\r\nAccess-Control-Request-Method: \xff\r\n"),
        (b"GET / HTTP/1.1", b"Cookie: ;;=;a\r\nCookie: b\r\n"),
        (b"GET / HTTP/1.1", b"Origin: https://x.example\r\n"),
    ]
    for line, headers in requests:
        body = b"\xff\xfe" if b"Content-Length" in headers else b""
        answer = raw(service, line + b"\r\nHost: " + host + b"\r\nConnection: close\r\n" + headers + b"\r\n" + body)
        assert answer.startswith(b"HTTP/1.1 200"), (line, headers, answer)
    answers: list[Any] = [
        7,
        None,
        [],
        {"statusCode": "x"},
        {"statusCode": 99},
        {"statusCode": 200, "body": {}},
        {"statusCode": 200, "headers": []},
    ]
    answers += [
        {"statusCode": 200, "headers": {"a b": "c"}},
        {"statusCode": 200, "headers": {"a": None}},
        {"statusCode": 200, "cookies": "x"},
    ]
    answers += [
        {"statusCode": 200, "body": "?", "isBase64Encoded": True},
        {"statusCode": 200, "headers": {"content-length": "99"}, "body": "x"},
    ]
    answers += [
        {"statusCode": 200, "headers": {"x": "\u4e2d\u6587"}},
        {"statusCode": 204, "body": "x"},
        {"statusCode": 200, "body": "\ud800"},
    ]
    for mode in ("BUFFERED", "RESPONSE_STREAM"):
        client.update_function_url_config(FunctionName="echo", InvokeMode=mode)
        for value in answers:
            client.update_function_configuration(FunctionName="echo", Environment={"Variables": {"ANSWER": json.dumps(value)}})
            code = "import json, os\ndef handler(event, context):\n    return json.loads(os.environ['ANSWER'])\n"
            if value == answers[0] and mode == "BUFFERED":
                client.update_function_code(FunctionName="echo", ZipFile=zipped({"app.py": code}))
            answer = raw(service, b"GET / HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n")
            status = int(answer.split(b" ", 2)[1])
            assert status in (200, 204, 502), (mode, value, answer)
    client.delete_function(FunctionName="echo")
