"""Lambda's control API with the unmodified `boto3`: versions, aliases, layers, settings, what is refused."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import json
import re
import time
import urllib.error
import urllib.request
import uuid
from typing import Any

import botocore.auth
import botocore.awsrequest
import botocore.credentials
import botocore.loaders
import pytest
from aws_client import call, connected, create, zipped
from botocore.exceptions import ClientError
from running_service import Service

WHO = "import os\ndef handler(event, context):\n    return [%r, context.function_version, context.invoked_function_arn]\n"


@pytest.fixture
def client(service: Service) -> Any:
    return connected(service)


@pytest.fixture
def name(client: Any) -> Any:
    name = f"f-{uuid.uuid4().hex[:8]}"
    create(client, name, zipped({"app.py": WHO % "one"}))
    yield name
    client.delete_function(FunctionName=name)


def code_of(caught: Any) -> str:
    return str(caught.value.response["Error"]["Code"])


def refused(kind: str, operation: Any, **given: Any) -> dict[str, Any]:
    with pytest.raises(ClientError) as caught:
        operation(**given)
    assert code_of(caught) == kind, caught.value.response
    return dict(caught.value.response["Error"])


def test_arns_have_the_form_that_the_model_demands(client: Any, name: str) -> None:
    shapes = botocore.loaders.Loader().load_service_model("lambda", "service-2")["shapes"]
    made = client.get_function(FunctionName=name)["Configuration"]
    assert re.fullmatch(shapes["FunctionArn"]["pattern"], made["FunctionArn"])
    layer = client.publish_layer_version(LayerName=name, Content={"ZipFile": zipped({"a": "b"})})
    assert re.fullmatch(shapes["LayerVersionArn"]["pattern"], layer["LayerVersionArn"])
    client.delete_layer_version(LayerName=name, VersionNumber=1)
    for waiter in ("function_active_v2", "function_updated_v2", "function_exists", "function_active", "function_updated"):
        client.get_waiter(waiter).wait(FunctionName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 2})
    for form in (made["FunctionArn"], made["FunctionArn"].partition("lambda:")[2].partition(":")[2], f"{name}:$LATEST"):
        assert client.get_function_configuration(FunctionName=form)["FunctionName"] == name


def test_versions_never_change(client: Any, name: str) -> None:
    first = client.publish_version(FunctionName=name, Description="the first")
    assert (first["Version"], first["Description"]) == ("1", "the first")
    assert first["FunctionArn"].endswith(f":{name}:1")
    # Nothing has changed since.
    assert client.publish_version(FunctionName=name)["Version"] == "1"
    digest = client.get_function_configuration(FunctionName=name)["CodeSha256"]
    archive = zipped({"app.py": WHO % "two"})
    second = client.update_function_code(FunctionName=name, ZipFile=archive, Publish=True)
    assert second["Version"] == "2"
    assert second["CodeSha256"] == base64.b64encode(hashlib.sha256(archive).digest()).decode() != digest
    assert call(client, name, {}, Qualifier="1")[0][:2] == ["one", "1"]
    assert call(client, f"{name}:2", {})[0][:2] == ["two", "2"]
    answer = call(client, name, {}, Qualifier="1")[1]
    assert answer["ExecutedVersion"] == "1"
    refused("InvalidParameterValueException", client.publish_version, FunctionName=name, CodeSha256=digest)
    refused("PreconditionFailedException", client.publish_version, FunctionName=name, RevisionId=str(uuid.uuid4()))
    listed = client.list_versions_by_function(FunctionName=name)["Versions"]
    assert [each["Version"] for each in listed] == ["$LATEST", "1", "2"]
    page = client.list_versions_by_function(FunctionName=name, MaxItems=2)
    rest = client.list_versions_by_function(FunctionName=name, MaxItems=2, Marker=page["NextMarker"])
    assert [each["Version"] for each in rest["Versions"]] == ["2"]
    assert "NextMarker" not in rest
    all_of_them = [each["FunctionArn"] for each in client.list_functions(FunctionVersion="ALL")["Functions"]]
    assert f"{first['FunctionArn']}" in all_of_them
    client.delete_function(FunctionName=name, Qualifier="1")
    refused("ResourceNotFoundException", client.invoke, FunctionName=name, Qualifier="1")
    refused("InvalidParameterValueException", client.delete_function, FunctionName=name, Qualifier="$LATEST")
    # Numbers are not used again.
    client.update_function_configuration(FunctionName=name, MemorySize=256)
    assert client.publish_version(FunctionName=name)["Version"] == "3"


def test_changes_that_were_decided_on_something_else(client: Any, name: str) -> None:
    before = client.get_function_configuration(FunctionName=name)
    tried = client.update_function_code(FunctionName=name, ZipFile=zipped({"app.py": "x = 1"}), DryRun=True)
    assert tried["RevisionId"] == before["RevisionId"]
    assert client.get_function_configuration(FunctionName=name)["CodeSha256"] == before["CodeSha256"]
    after = client.update_function_configuration(FunctionName=name, Timeout=9, RevisionId=before["RevisionId"])
    assert after["Timeout"] == 9
    assert after["RevisionId"] != before["RevisionId"]
    for operation, given in (
        (client.update_function_configuration, {"Timeout": 10}),
        (client.update_function_code, {"ZipFile": zipped({"app.py": "x = 1"})}),
    ):
        refused("PreconditionFailedException", operation, FunctionName=name, RevisionId=before["RevisionId"], **given)


def test_aliases(client: Any, name: str) -> None:
    client.publish_version(FunctionName=name)
    client.update_function_code(FunctionName=name, ZipFile=zipped({"app.py": WHO % "two"}), Publish=True)
    made = client.create_alias(FunctionName=name, Name="live", FunctionVersion="1", Description="for all")
    assert (made["FunctionVersion"], made["Description"]) == ("1", "for all")
    assert call(client, name, {}, Qualifier="live")[0][:2] == ["one", "1"]
    refused("ResourceConflictException", client.create_alias, FunctionName=name, Name="live", FunctionVersion="2")
    refused("ResourceNotFoundException", client.create_alias, FunctionName=name, Name="other", FunctionVersion="77")
    refused("InvalidParameterValueException", client.create_alias, FunctionName=name, Name="12", FunctionVersion="1")
    moved = client.update_alias(FunctionName=name, Name="live", FunctionVersion="2", RevisionId=made["RevisionId"])
    refused("PreconditionFailedException", client.update_alias, FunctionName=name, Name="live", RevisionId=made["RevisionId"])
    assert call(client, f"{name}:live", {})[0][0] == "two"
    for weights in ({"2": 0.5}, {"$LATEST": 0.5}, {"1": 0.3, "2": 0.2}):
        routing = {"AdditionalVersionWeights": weights}
        refused("InvalidParameterValueException", client.update_alias, FunctionName=name, Name="live", RoutingConfig=routing)
    client.update_alias(FunctionName=name, Name="live", RoutingConfig={"AdditionalVersionWeights": {"1": 1.0}})
    assert client.get_alias(FunctionName=name, Name="live")["RoutingConfig"] == {"AdditionalVersionWeights": {"1": 1.0}}
    assert {call(client, name, {}, Qualifier="live")[1]["ExecutedVersion"] for _ in range(5)} == {"1"}
    client.update_alias(FunctionName=name, Name="live", RoutingConfig={"AdditionalVersionWeights": {"1": 0.5}})
    # 40 throws of a coin that all fall alike: once in half a million million times.
    assert {call(client, name, {}, Qualifier="live")[1]["ExecutedVersion"] for _ in range(40)} == {"1", "2"}
    assert [each["Name"] for each in client.list_aliases(FunctionName=name, FunctionVersion="1")["Aliases"]] == ["live"]
    shown = client.get_function(FunctionName=name, Qualifier="live")["Configuration"]
    assert (shown["Version"], shown["FunctionArn"]) == ("2", moved["AliasArn"])
    refused("ResourceConflictException", client.delete_function, FunctionName=name, Qualifier="1")
    client.delete_alias(FunctionName=name, Name="live")
    refused("ResourceNotFoundException", client.get_alias, FunctionName=name, Name="live")
    assert moved["AliasArn"].endswith(f":{name}:live")


def test_a_function_knows_by_what_name_it_was_called(client: Any, name: str) -> None:
    client.publish_version(FunctionName=name)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    arn = client.get_function_configuration(FunctionName=name)["FunctionArn"]
    for qualifier, end in ((None, ""), ("1", ":1"), ("live", ":live"), ("$LATEST", ":$LATEST")):
        given = {} if qualifier is None else {"Qualifier": qualifier}
        assert call(client, name, {}, **given)[0][2] == arn + end


def test_what_is_set_for_an_alias_goes_first(service: Service, client: Any, name: str) -> None:
    """A call through the alias is not tried again, and its failure is told to another function."""
    create(client, f"{name}-told", zipped({"app.py": "import json\ndef handler(event, context):\n    print('told', json.dumps(event))\n"}))
    failing = "def handler(event, context):\n    raise ValueError(event)\n"
    client.update_function_code(FunctionName=name, ZipFile=zipped({"app.py": failing}), Publish=True)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    told = client.get_function_configuration(FunctionName=f"{name}-told")["FunctionArn"]
    settings = {"MaximumRetryAttempts": 0, "DestinationConfig": {"OnFailure": {"Destination": told}}}
    client.put_function_event_invoke_config(FunctionName=name, Qualifier="live", **settings)
    assert client.invoke(FunctionName=name, Qualifier="live", InvocationType="Event", Payload=b'"by alias"')["StatusCode"] == 202
    deadline = time.monotonic() + 90
    text = ""
    while "RetriesExhausted" not in text:
        assert time.monotonic() < deadline, text
        entries = service.request("GET", f"/v1/functions/{name}-told/log?after=0&wait=5")[1]["entries"]
        text = "".join(each["text"] for each in entries)
    record = json.loads(text.partition("told ")[2].partition("\n")[0])
    assert record["requestPayload"] == "by alias"
    assert record["requestContext"]["approximateInvokeCount"] == 1
    client.delete_function(FunctionName=f"{name}-told")


def test_layers(client: Any) -> None:
    first = client.publish_layer_version(
        LayerName="tools",
        Content={"ZipFile": zipped({"python/tool.py": "who = 'first'", "python/only.py": "here = 1"})},
        CompatibleRuntimes=["python3.11"],
        Description="a tool",
    )
    other = client.publish_layer_version(LayerName="more", Content={"ZipFile": zipped({"python/tool.py": "who = 'more'", "data.txt": "x"})})
    assert first["Version"] == 1
    handler = (
        "import tool, only\ndef handler(event, context):\n    return [tool.who, only.here, sorted(__import__('os').listdir('/opt'))]\n"
    )
    create(client, "layered", zipped({"app.py": handler}), Layers=[first["LayerVersionArn"], other["LayerVersionArn"]])
    # Of files of one name the last layer's counts.
    assert call(client, "layered", {})[0] == ["more", 1, ["data.txt", "python"]]
    client.update_function_configuration(FunctionName="layered", Layers=[other["LayerVersionArn"], first["LayerVersionArn"]])
    assert call(client, "layered", {})[0][0] == "first"
    shown = client.get_function_configuration(FunctionName="layered")["Layers"]
    assert [each["Arn"] for each in shown] == [other["LayerVersionArn"], first["LayerVersionArn"]]
    assert client.get_layer_version_by_arn(Arn=first["LayerVersionArn"])["Description"] == "a tool"
    found = client.get_layer_version(LayerName="tools", VersionNumber=1)
    with urllib.request.urlopen(found["Content"]["Location"]) as answer:
        assert base64.b64encode(hashlib.sha256(answer.read()).digest()).decode() == found["Content"]["CodeSha256"]
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(found["Content"]["Location"].replace("token=", "token=0"))
    assert [each["LayerName"] for each in client.list_layers(CompatibleRuntime="python3.11")["Layers"]] == ["tools"]
    client.publish_layer_version(LayerName="tools", Content={"ZipFile": zipped({"python/tool.py": "who = 'second'"})})
    assert [each["Version"] for each in client.list_layer_versions(LayerName="tools")["LayerVersions"]] == [2, 1]
    client.add_layer_version_permission(
        LayerName="tools", VersionNumber=1, StatementId="all", Action="lambda:GetLayerVersion", Principal="*"
    )
    policy = json.loads(client.get_layer_version_policy(LayerName="tools", VersionNumber=1)["Policy"])
    assert policy["Statement"][0]["Principal"] == "*"
    client.remove_layer_version_permission(LayerName="tools", VersionNumber=1, StatementId="all")
    refused("ResourceNotFoundException", client.get_layer_version_policy, LayerName="tools", VersionNumber=1)
    # A layer that is removed works on where it is used.
    client.delete_layer_version(LayerName="tools", VersionNumber=1)
    refused("ResourceNotFoundException", client.get_layer_version, LayerName="tools", VersionNumber=1)
    client.update_function_configuration(FunctionName="layered", Timeout=19)
    assert call(client, "layered", {})[0][0] == "first"
    archive = zipped({"app.py": handler})
    for layers in ([first["LayerVersionArn"]], [other["LayerVersionArn"]] * 6, ["arn:aws:lambda:us-east-1:123456789012:layer:theirs:1"]):
        with pytest.raises(client.exceptions.InvalidParameterValueException):
            create(client, "x", archive, Layers=layers)
    client.delete_function(FunctionName="layered")


def test_concurrency_settings(client: Any, name: str) -> None:
    assert client.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions") is None
    assert client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=5)["ReservedConcurrentExecutions"] == 5
    assert client.get_function(FunctionName=name)["Concurrency"] == {"ReservedConcurrentExecutions": 5}
    limits = client.get_account_settings()["AccountLimit"]
    assert limits["UnreservedConcurrentExecutions"] <= limits["ConcurrentExecutions"] - 5
    refused("InvalidParameterValueException", client.put_function_concurrency, FunctionName=name, ReservedConcurrentExecutions=901)
    provision = client.put_provisioned_concurrency_config
    refused("InvalidParameterValueException", provision, FunctionName=name, Qualifier="$LATEST", ProvisionedConcurrentExecutions=1)
    client.publish_version(FunctionName=name)
    client.create_alias(FunctionName=name, Name="live", FunctionVersion="1")
    refused("InvalidParameterValueException", provision, FunctionName=name, Qualifier="1", ProvisionedConcurrentExecutions=6)
    made = provision(FunctionName=name, Qualifier="1", ProvisionedConcurrentExecutions=1)
    assert made["RequestedProvisionedConcurrentExecutions"] == 1
    deadline = time.monotonic() + 90
    while client.get_provisioned_concurrency_config(FunctionName=name, Qualifier="1")["Status"] != "READY":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    refused("InvalidParameterValueException", provision, FunctionName=name, Qualifier="live", ProvisionedConcurrentExecutions=1)
    listed = client.list_provisioned_concurrency_configs(FunctionName=name)["ProvisionedConcurrencyConfigs"]
    assert [each["FunctionArn"].rpartition(":")[2] for each in listed] == ["1"]
    client.delete_provisioned_concurrency_config(FunctionName=name, Qualifier="1")
    refused("ProvisionedConcurrencyConfigNotFoundException", client.get_provisioned_concurrency_config, FunctionName=name, Qualifier="1")
    client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
    with pytest.raises(client.exceptions.TooManyRequestsException) as caught:
        client.invoke(FunctionName=name)
    assert caught.value.response["Reason"] == "ReservedFunctionConcurrentInvocationLimitExceeded"
    client.delete_function_concurrency(FunctionName=name)
    assert client.get_function_concurrency(FunctionName=name).get("ReservedConcurrentExecutions") is None


def test_settings_of_asynchronous_calls(client: Any, name: str) -> None:
    arn = client.get_function_configuration(FunctionName=name)["FunctionArn"]
    refused("ResourceNotFoundException", client.get_function_event_invoke_config, FunctionName=name)
    put = client.put_function_event_invoke_config
    made = put(FunctionName=name, MaximumRetryAttempts=1, DestinationConfig={"OnFailure": {"Destination": arn}})
    assert (made["MaximumRetryAttempts"], made["MaximumEventAgeInSeconds"]) == (1, 21600)
    changed = client.update_function_event_invoke_config(FunctionName=name, MaximumEventAgeInSeconds=60)
    assert (changed["MaximumRetryAttempts"], changed["MaximumEventAgeInSeconds"]) == (1, 60)
    assert changed["DestinationConfig"]["OnFailure"] == {"Destination": arn}
    for wrong in (
        {"MaximumRetryAttempts": 3},
        {"MaximumEventAgeInSeconds": 21601},
        {"DestinationConfig": {"OnSuccess": {"Destination": "arn:aws:sqs:eu-central-1:000000000000:queue"}}},
        {"DestinationConfig": {"OnSuccess": {"Destination": arn + "-not"}}},
        {},
    ):
        refused("InvalidParameterValueException", put, FunctionName=name, **wrong)
    assert len(client.list_function_event_invoke_configs(FunctionName=name)["FunctionEventInvokeConfigs"]) == 1
    client.delete_function_event_invoke_config(FunctionName=name)
    update = client.update_function_configuration
    assert update(FunctionName=name, DeadLetterConfig={"TargetArn": arn})["DeadLetterConfig"] == {"TargetArn": arn}
    topic = {"TargetArn": "arn:aws:sns:eu-central-1:000000000000:topic"}
    assert "only functions" in refused("InvalidParameterValueException", update, FunctionName=name, DeadLetterConfig=topic)["Message"]


def test_tags_and_policies(client: Any, name: str) -> None:
    arn = client.get_function_configuration(FunctionName=name)["FunctionArn"]
    client.tag_resource(Resource=arn, Tags={"team": "blue", "cost centre": "7/ä"})
    client.untag_resource(Resource=arn, TagKeys=["team"])
    assert client.list_tags(Resource=arn)["Tags"] == {"cost centre": "7/ä"}
    assert client.get_function(FunctionName=name)["Tags"] == {"cost centre": "7/ä"}
    refused("InvalidParameterValueException", client.tag_resource, Resource=arn, Tags={"aws:x": "y"})
    refused("InvalidParameterValueException", client.tag_resource, Resource=arn, Tags={str(number): "" for number in range(51)})
    refused("ResourceNotFoundException", client.list_tags, Resource=arn + "-not")
    refused("ResourceNotFoundException", client.get_policy, FunctionName=name)
    given = {"FunctionName": name, "Action": "lambda:InvokeFunction", "Principal": "s3.amazonaws.com"}
    made = client.add_permission(StatementId="s3", SourceArn="arn:aws:s3:::bucket", **given)
    statement = json.loads(made["Statement"])
    assert statement["Condition"] == {"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::bucket"}}
    refused("ResourceConflictException", client.add_permission, StatementId="s3", **given)
    policy = client.get_policy(FunctionName=name)
    assert json.loads(policy["Policy"])["Statement"] == [statement]
    refused("PreconditionFailedException", client.remove_permission, FunctionName=name, StatementId="s3", RevisionId="other")
    client.remove_permission(FunctionName=name, StatementId="s3", RevisionId=policy["RevisionId"])
    refused("ResourceNotFoundException", client.remove_permission, FunctionName=name, StatementId="s3")
    whole = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "lambda:*", "Resource": arn}]}
    client.put_resource_policy(ResourceArn=arn, Policy=json.dumps(whole))
    assert "lambda:*" in client.get_resource_policy(ResourceArn=arn)["Policy"]
    client.delete_resource_policy(ResourceArn=arn)
    refused("ResourceNotFoundException", client.get_resource_policy, ResourceArn=arn)


def test_parameters_are_checked(client: Any, name: str) -> None:
    archive = zipped({"app.py": WHO % "x"})
    wrong: list[dict[str, Any]] = [
        {"Timeout": 901},
        {"MemorySize": 10241},
        {"Handler": "has space"},
        {"Environment": {"Variables": {"BIG": "x" * 4096}}},
        {"Environment": {"Variables": {"AWS_REGION": "x"}}},
        {"Environment": {"Variables": {"1X": "x"}}},
        {"EphemeralStorage": {"Size": 10241}},
        {"VpcConfig": {"SubnetIds": ["subnet-1"], "SecurityGroupIds": ["sg-1"]}},
        {"KMSKeyArn": "arn:aws:kms:eu-central-1:000000000000:key/1"},
        {"SnapStart": {"ApplyOn": "PublishedVersions"}},
        {"Architectures": ["arm64"]},
        {"Runtime": "ruby3.4"},
        {"Tags": {"aws:x": "1"}},
        {"DeadLetterConfig": {"TargetArn": "arn:aws:sqs:eu-central-1:000000000000:queue"}},
        {"PackageType": "Image"},
    ]
    for given in wrong:
        with pytest.raises(client.exceptions.InvalidParameterValueException):
            create(client, "wrong", archive, **given)
    for bad in ("no such name!", "x" * 65, "arn:aws:sqs:eu-central-1:000000000000:queue"):
        with pytest.raises(client.exceptions.InvalidParameterValueException):
            create(client, bad, archive)
    error = refused("InvalidParameterValueException", client.update_function_configuration, FunctionName=name, Timeout=901)
    assert "Value '901' at 'timeout' failed to satisfy constraint: Member must have value less than or equal to 900" in error["Message"]
    with pytest.raises(client.exceptions.CodeSigningConfigNotFoundException):
        create(
            client, "wrong", archive, CodeSigningConfigArn="arn:aws:lambda:eu-central-1:000000000000:code-signing-config:csc-" + "0" * 17
        )
    refused("InvalidParameterValueException", client.invoke, FunctionName=f"{name}:1", Qualifier="2")
    refused("ResourceNotFoundException", client.invoke, FunctionName=f"arn:aws:lambda:eu-central-1:999999999999:function:{name}")
    refused("InvalidRequestContentException", client.invoke, FunctionName=name, ClientContext="{no base64}")
    assert client.list_event_source_mappings()["EventSourceMappings"] == []
    refused("InvalidParameterValueException", client.create_event_source_mapping, FunctionName=name, EventSourceArn="arn:aws:sqs:x:0:q")
    assert client.list_code_signing_configs()["CodeSigningConfigs"] == []
    assert client.get_function_recursion_config(FunctionName=name)["RecursiveLoop"] == "Terminate"
    assert client.put_function_recursion_config(FunctionName=name, RecursiveLoop="Allow")["RecursiveLoop"] == "Allow"
    assert client.get_runtime_management_config(FunctionName=name)["UpdateRuntimeOn"] == "Auto"


def test_functions_reach_no_network(service: Service, client: Any, name: str) -> None:
    reach = "import socket\ndef handler(event, context):\n    try:\n        socket.create_connection(('127.0.0.1', event), 5).close()\n"
    reach += "        return True\n    except OSError:\n        return False\n"
    client.update_function_code(FunctionName=name, ZipFile=zipped({"app.py": reach}))
    assert call(client, name, service.port)[0] is False


def test_code_comes_back(client: Any, name: str) -> None:
    code = client.get_function(FunctionName=name)["Code"]
    with urllib.request.urlopen(code["Location"]) as answer:
        assert answer.read() == zipped({"app.py": WHO % "one"})


def test_every_operation_of_the_model_has_a_typed_answer(service: Service, client: Any) -> None:
    """Whatever the client can ask: no operation is unknown, and none fails within the service."""
    model = botocore.loaders.Loader().load_service_model("lambda", "service-2")
    signer = botocore.auth.SigV4Auth(credentials_of(service), "lambda", "eu-central-1")
    for operation, about in model["operations"].items():
        path = re.sub(r"\{(\w+)\}", lambda found: "1" if found[1] == "VersionNumber" else "absent", about["http"]["requestUri"])
        request = botocore.awsrequest.AWSRequest(about["http"]["method"], service.url + path, data=b"{}")
        signer.add_auth(request)
        sent = urllib.request.Request(service.url + path, request.data, dict(request.headers.items()), method=request.method)
        try:
            with urllib.request.urlopen(sent, timeout=20):
                kind = f"success of {operation}"
                fine = operation.startswith(("List", "GetAccount", "Delete"))
        except urllib.error.HTTPError as error:
            kind = error.headers["X-Amzn-ErrorType"]
            fine = kind in {each["shape"] for each in about["errors"]}
        assert fine, (operation, kind)


def credentials_of(service: Service) -> botocore.credentials.Credentials:
    _, pair = service.request("GET", "/v1/credentials")
    return botocore.credentials.Credentials(pair["access_key_id"], pair["secret_access_key"])


def test_presigned_addresses(service: Service, client: Any, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def opened(seconds: int, change: tuple[str, str] = ("", "")) -> int:
        request = botocore.awsrequest.AWSRequest("GET", f"{service.url}/2015-03-31/functions/{name}?Qualifier=$LATEST")
        botocore.auth.SigV4QueryAuth(credentials_of(service), "lambda", "eu-central-1", expires=seconds).add_auth(request)
        try:
            with urllib.request.urlopen(request.url.replace(*change) if change[0] else request.url) as answer:
                assert json.load(answer)["Configuration"]["FunctionName"] == name
                return int(answer.status)
        except urllib.error.HTTPError as error:
            return error.code

    assert opened(60) == 200
    assert opened(60, ("LATEST", "OLDEST")) == 403
    assert opened(60, ("Expires=60", "Expires=6000")) == 403
    assert opened(60, ("lambda%2Faws4", "s3%2Faws4")) == 403
    assert opened(8 * 24 * 3600) == 403
    real = botocore.auth.get_current_datetime
    for hours, seconds in ((-1, 60), (1, 60)):
        monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda *_, hours=hours: real() + dt.timedelta(hours=hours))
        assert opened(seconds) == 403
        with pytest.raises(ClientError) as caught:
            client.list_functions()
        assert code_of(caught) == "InvalidSignatureException"
        monkeypatch.undo()
