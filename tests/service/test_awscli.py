"""Debian's `awscli`, unmodified: `aws --endpoint-url`."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from aws_client import zipped
from running_service import Service

AWS = shutil.which("aws", path="/usr/bin")
HANDLER = "def handler(event, context):\n    print('said')\n    return {'got': event, 'version': context.function_version}\n"


class Cli:
    """The command line with the service's address and a key."""

    def __init__(self, service: Service, directory: Path) -> None:
        _, pair = service.request("GET", "/v1/credentials")
        self._directory = directory
        self._base = [AWS or "aws", "--endpoint-url", service.url, "--output", "json", "lambda"]
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            "HOME": str(directory),
            "AWS_ACCESS_KEY_ID": pair["access_key_id"],
            "AWS_SECRET_ACCESS_KEY": pair["secret_access_key"],
            "AWS_DEFAULT_REGION": "eu-central-1",
            "AWS_PAGER": "",
            "AWS_MAX_ATTEMPTS": "1",
        }

    def __call__(self, *arguments: str, fails: str = "") -> Any:
        done = subprocess.run(
            [*self._base, *arguments], env=self._environment, cwd=self._directory, capture_output=True, text=True, timeout=55, check=False
        )
        if fails:
            assert done.returncode != 0, done.stdout
            assert fails in done.stderr
            return None
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None


@pytest.mark.timeout(900)
def test_a_functions_life(service: Service, tmp_path: Path) -> None:
    if AWS is None:
        pytest.skip("Debian's package `awscli` is not installed")
    aws = Cli(service, tmp_path)
    (tmp_path / "one.zip").write_bytes(zipped({"app.py": HANDLER}))
    given = ("--runtime", "python3.11", "--handler", "app.handler", "--role", "arn:aws:iam::000000000000:role/any", "--timeout", "200")
    made = aws("create-function", "--function-name", "cli", *given, "--zip-file", "fileb://one.zip", "--tags", "team=blue")
    assert made["State"] == "Active"
    aws("wait", "function-active-v2", "--function-name", "cli")
    call = ("invoke", "--function-name", "cli", "--cli-binary-format", "raw-in-base64-out", "--payload")
    answer = aws(*call, '{"n": 1}', "--log-type", "Tail", "out.json")
    assert answer["StatusCode"] == 200
    assert "said" in base64.b64decode(answer["LogResult"]).decode()
    assert json.loads((tmp_path / "out.json").read_text()) == {"got": {"n": 1}, "version": "$LATEST"}
    aws("publish-version", "--function-name", "cli")
    aws("create-alias", "--function-name", "cli", "--name", "live", "--function-version", "1")
    aws(*call, "{}", "--qualifier", "live", "out.json")
    assert json.loads((tmp_path / "out.json").read_text())["version"] == "1"
    assert aws("list-tags", "--resource", made["FunctionArn"])["Tags"] == {"team": "blue"}
    assert [each["FunctionName"] for each in aws("list-functions", "--max-items", "1")["Functions"]] == ["cli"]
    url = aws("create-function-url-config", "--function-name", "cli", "--auth-type", "NONE")["FunctionUrl"]
    assert ".lambda-url." in url
    aws("get-function", "--function-name", "absent", fails="(ResourceNotFoundException)")
    aws("update-function-configuration", "--function-name", "cli", "--timeout", "901", fails="(InvalidParameterValueException)")
    aws("delete-function", "--function-name", "cli")
    aws("get-function", "--function-name", "cli", fails="(ResourceNotFoundException)")
