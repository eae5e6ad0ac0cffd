"""What the API answers: records in Lambda's words."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cloudpilot.functions.records import Function


def described(function: Function) -> dict[str, Any]:
    """What `GetFunctionConfiguration` answers."""
    return {
        "FunctionName": function.name,
        "FunctionArn": function.arn,
        "Runtime": function.runtime,
        "Role": function.role,
        "Handler": function.handler,
        "CodeSize": function.code_size,
        "Description": function.description,
        "Timeout": function.timeout,
        "MemorySize": function.memory_mb,
        "LastModified": stamp(function.modified),
        "CodeSha256": base64.b64encode(bytes.fromhex(function.digest)).decode(),
        "Version": function.version,
        "Environment": {"Variables": function.env},
        "RevisionId": function.revision,
        "State": "Active",
        "LastUpdateStatus": "Successful",
        "PackageType": function.package,
        "Architectures": ["x86_64"],
    }


def stamp(when: float) -> str:
    """A time as the API writes it."""
    return datetime.fromtimestamp(when, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "+0000"
