"""Node handlers, as they are written for Lambda."""

from __future__ import annotations

import base64
import json
import shutil
from typing import Any

import pytest
from aws_client import call, connected, zipped
from running_service import Service

HANDLERS = """
let calls = 0;
exports.promise = async (event, context) => {
  console.log("said", context.awsRequestId);
  if (event.fails) throw new RangeError("as asked");
  return { event, calls: ++calls, left: context.getRemainingTimeInMillis(), name: context.functionName, colour: process.env.COLOUR };
};
exports.callback = (event, context, callback) => setTimeout(() => callback(event.fails ? new Error("by callback") : null, "called back"), 5);
exports.plain = (event) => event.n + 1;
exports.streamed = awslambda.streamifyResponse(async (event, stream) => {
  stream = awslambda.HttpResponseStream.from(stream, { statusCode: 207, headers: { "x-own": "yes" } });
  for (const part of ["a", "b", "c"]) {
    stream.write(part);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  if (event.rawPath === "/fails") throw new Error("in the middle");
  stream.end();
});
"""
MODULE = "import os from 'node:os';\nexport const handler = async () => os.platform();\n"


@pytest.fixture
def client(service: Service) -> Any:
    if shutil.which("node", path="/usr/local/bin:/usr/bin:/bin") is None:
        pytest.skip("the host has no `node`, which sandboxes would show")
    return connected(service)


def create(client: Any, handler: str) -> None:
    archive = zipped({"index.js": HANDLERS, "lib/module.mjs": MODULE})
    client.create_function(
        FunctionName="node", Runtime="nodejs22.x", Handler=handler, Role="any", Timeout=20, MemorySize=256, Code={"ZipFile": archive},
        Environment={"Variables": {"COLOUR": "blue"}},
    )  # fmt: skip


def test_handlers_of_all_kinds(client: Any) -> None:
    create(client, "index.promise")
    result, answer = call(client, "node", {"a": "ä"}, LogType="Tail")
    assert (result["event"], result["calls"], result["name"], result["colour"]) == ({"a": "ä"}, 1, "node", "blue")
    assert 0 < result["left"] <= 20_000
    assert "said " in base64.b64decode(answer["LogResult"]).decode()
    assert call(client, "node", {})[0]["calls"] == 2
    result, answer = call(client, "node", {"fails": 1})
    assert (answer["FunctionError"], result["errorType"], result["errorMessage"]) == ("Unhandled", "RangeError", "as asked")
    for handler, expected in (("index.callback", "called back"), ("lib/module.handler", "linux")):
        client.update_function_configuration(FunctionName="node", Handler=handler)
        assert call(client, "node", {})[0] == expected
    client.update_function_configuration(FunctionName="node", Handler="index.plain")
    assert call(client, "node", {"n": 6})[0] == 7
    for handler, kind in (("absent.handler", "Runtime.ImportModuleError"), ("index.absent", "Runtime.HandlerNotFound")):
        client.update_function_configuration(FunctionName="node", Handler=handler)
        assert call(client, "node", {})[0]["errorType"] == kind
    client.delete_function(FunctionName="node")


def test_streamed_answers(service: Service, client: Any) -> None:
    create(client, "index.streamed")
    client.create_function_url_config(FunctionName="node", AuthType="NONE", InvokeMode="RESPONSE_STREAM")
    path = f"/v1/function-urls/{client.get_function_url_config(FunctionName='node')['FunctionUrl'][7:39]}/"
    assert service.request("GET", path) == (207, b"abc")
    events = list(client.invoke_with_response_stream(FunctionName="node", Payload=b'{"rawPath":"/fails"}')["EventStream"])
    assert json.loads(events[-1]["InvokeComplete"]["ErrorDetails"])["errorMessage"] == "in the middle"
    client.delete_function(FunctionName="node")
