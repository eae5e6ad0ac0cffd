"""What tests of Lambda's API share: the unmodified client, and archives."""

from __future__ import annotations

import io
import json
import stat
import zipfile
from typing import Any

import boto3
from botocore.config import Config
from running_service import Service


def zipped(files: dict[str, str | bytes], mode: int = 0o644) -> bytes:
    """An archive of these files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = (stat.S_IFREG | mode) << 16
            archive.writestr(entry, text)
    return buffer.getvalue()


def connected(service: Service, pair: dict[str, str] | None = None) -> Any:
    """A client of AWS's, with the service's own key if no other is given."""
    if pair is None:
        _, pair = service.request("GET", "/v1/credentials")
    return boto3.client(
        "lambda",
        endpoint_url=service.url,
        region_name="eu-central-1",
        aws_access_key_id=pair["access_key_id"],
        aws_secret_access_key=pair["secret_access_key"],
        config=Config(retries={"max_attempts": 0}, read_timeout=50),
    )


def create(client: Any, name: str, archive: bytes, **more: Any) -> Any:
    """Makes a function."""
    given = {"Runtime": "python3.11", "Handler": "app.handler", "Role": "arn:aws:iam::0:role/x", "Timeout": 20, **more}
    return client.create_function(FunctionName=name, Code={"ZipFile": archive}, **given)


def call(client: Any, name: str, event: Any, **more: Any) -> tuple[Any, Any]:
    """Calls a function; answers what it answered, and the whole answer."""
    answer = client.invoke(FunctionName=name, Payload=json.dumps(event), **more)
    return json.loads(answer["Payload"].read()), answer
