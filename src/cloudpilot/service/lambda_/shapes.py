"""What the API answers: records in Lambda's words."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cloudpilot.functions.records import arn_of

if TYPE_CHECKING:
    from cloudpilot.functions.records import Alias, EventConfig, Function, Layer, UrlConfig


def described(function: Function, qualifier: str | None = None) -> dict[str, Any]:
    """What `GetFunctionConfiguration` answers to whoever named the function so."""
    if qualifier is None and function.version.isdigit():
        qualifier = function.version
    value: dict[str, Any] = {
        "FunctionName": function.name,
        "FunctionArn": arn_of(function.name, qualifier),
        "Role": function.role,
        "CodeSize": function.code_size,
        "Description": function.description,
        "Timeout": function.timeout,
        "MemorySize": function.memory_mb,
        "LastModified": stamp(function.modified),
        "CodeSha256": sha256_of(function.digest),
        "Version": function.version,
        "TracingConfig": {"Mode": "PassThrough"},
        "RevisionId": function.revision,
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "PackageType": function.package,
        "Architectures": ["x86_64"],
        "EphemeralStorage": {"Size": function.ephemeral_mb},
        "SnapStart": {"ApplyOn": "None", "OptimizationStatus": "Off"},
        **({"TracingConfig": function.options["TracingConfig"]} if "TracingConfig" in function.options else {}),
    }
    value["LoggingConfig"] = {"LogFormat": "Text", "LogGroup": f"/aws/lambda/{function.name}", **function.options.get("LoggingConfig", {})}
    if function.package == "Zip":
        value["Runtime"] = function.runtime
        value["Handler"] = function.handler
    if function.image_config:
        value["ImageConfigResponse"] = {"ImageConfig": function.image_config}
    if function.env:
        value["Environment"] = {"Variables": function.env}
    if function.layers:
        value["Layers"] = [{"Arn": layer["arn"], "CodeSize": layer["size"]} for layer in function.layers]
    if function.dead_letters is not None:
        value["DeadLetterConfig"] = {"TargetArn": function.dead_letters}
    return value


def alias_described(function: str, alias: Alias) -> dict[str, Any]:
    """What `GetAlias` answers."""
    value: dict[str, Any] = {
        "AliasArn": arn_of(function, alias.name),
        "Name": alias.name,
        "FunctionVersion": alias.version,
        "Description": alias.description,
        "RevisionId": alias.revision,
    }
    if alias.weights:
        value["RoutingConfig"] = {"AdditionalVersionWeights": alias.weights}
    return value


def events_described(function: str, qualifier: str, config: EventConfig) -> dict[str, Any]:
    """What `GetFunctionEventInvokeConfig` answers."""
    targets = {"OnSuccess": config.on_success, "OnFailure": config.on_failure}
    return {
        "LastModified": config.modified,
        "FunctionArn": arn_of(function, qualifier),
        "MaximumRetryAttempts": config.retries,
        "MaximumEventAgeInSeconds": config.most_age,
        "DestinationConfig": {name: {} if arn is None else {"Destination": arn} for name, arn in targets.items()},
    }


def layer_described(layer: Layer) -> dict[str, Any]:
    """A version of a layer, in lists."""
    value: dict[str, Any] = {
        "LayerVersionArn": layer.arn,
        "Version": layer.version,
        "Description": layer.description,
        "CreatedDate": stamp(layer.created),
    }
    more = {"CompatibleRuntimes": layer.runtimes, "CompatibleArchitectures": layer.architectures, "LicenseInfo": layer.license}
    return {**value, **{name: each for name, each in more.items() if each is not None}}


def url_described(url: UrlConfig, address: str) -> dict[str, Any]:
    """What `GetFunctionUrlConfig` answers."""
    value: dict[str, Any] = {
        "FunctionUrl": address,
        "FunctionArn": url.arn,
        "AuthType": url.auth,
        "CreationTime": stamp(url.created),
        "LastModifiedTime": stamp(url.modified),
        "InvokeMode": "RESPONSE_STREAM" if url.stream else "BUFFERED",
    }
    return value if url.cors is None else {**value, "Cors": url.cors}


def sha256_of(digest: str) -> str:
    """A hash as the API writes it."""
    return base64.b64encode(bytes.fromhex(digest)).decode()


def stamp(when: float) -> str:
    """A time as the API writes it."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
