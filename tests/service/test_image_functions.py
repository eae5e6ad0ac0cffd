"""Functions made from images, over Lambda's API and ours."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from aws_client import call, connected, zipped
from running_service import Service

sys.path.insert(0, str(Path(__file__).parent.parent))
import oci


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("program") / "runtime"
    source = Path(__file__).parent.parent / "guests" / "lambda_runtime.c"
    subprocess.run(["gcc", "-O1", "-static", "-w", "-o", path, source], check=True, timeout=120)
    return path.read_bytes()


def test_a_function_from_a_layout(service: Service, program: bytes, tmp_path: Path) -> None:
    client = connected(service)
    config = {"Entrypoint": ["/runtime", "own"], "Cmd": ["first"], "Env": ["COLOUR=blue"], "WorkingDir": "/work", "User": "1000:1000"}
    entries = (oci.directory("work"), oci.file("runtime", program, mode=0o755))
    layout = oci.simple(tmp_path / "layout", *entries, config=config)
    given: dict[str, Any] = {"PackageType": "Image", "Role": "arn:aws:iam::000000000000:role/any", "Timeout": 20}
    made = client.create_function(FunctionName="image", Code={"ImageUri": f"oci:{layout}"}, **given)
    assert (made["PackageType"], made["State"]) == ("Image", "Active")
    assert "Runtime" not in made
    # The layout itself is not needed any more.
    shutil.rmtree(layout)
    expected = {"arguments": "own first", "directory": "/work", "uid": 1000, "colour": "blue", "name": "image", "event": {"n": 1}}
    assert call(client, "image", {"n": 1})[0] == expected
    client.update_function_configuration(
        FunctionName="image", ImageConfig={"Command": ["second"], "WorkingDirectory": "/"}, Environment={"Variables": {"COLOUR": "red"}}
    )
    assert call(client, "image", {"n": 2})[0] == {
        **expected,
        "arguments": "own second",
        "directory": "/",
        "colour": "red",
        "event": {"n": 2},
    }
    shown = client.get_function(FunctionName="image")
    assert shown["Configuration"]["ImageConfigResponse"]["ImageConfig"]["Command"] == ["second"]
    assert shown["Code"]["ResolvedImageUri"].rpartition("@")[2].startswith("sha256:")
    other = oci.simple(tmp_path / "other", *entries, config={**config, "Cmd": ["third"]})
    client.publish_version(FunctionName="image")
    client.update_function_code(FunctionName="image", ImageUri=f"oci:{other}")
    client.update_function_configuration(FunctionName="image", ImageConfig={})
    assert call(client, "image", {})[0]["arguments"] == "own third"
    assert call(client, "image", {}, Qualifier="1")[0]["arguments"] == "own second"
    client.delete_function(FunctionName="image")
    # Images of functions go with the last of them.
    assert not [name for name in (service.directory / "data" / "images" / "names").iterdir() if "cloudpilot-functions" in name.name]


def test_images_that_cannot_be(service: Service, program: bytes, tmp_path: Path) -> None:
    client = connected(service)
    given: dict[str, Any] = {"PackageType": "Image", "Role": "arn:aws:iam::000000000000:role/any"}
    empty = oci.simple(tmp_path / "empty", oci.file("runtime", program, mode=0o755))
    for uri in ("registry.example/never:seen", f"oci:{tmp_path}/absent", f"oci:{empty}"):
        with pytest.raises(client.exceptions.InvalidParameterValueException):
            client.create_function(FunctionName="wrong", Code={"ImageUri": uri}, **given)
    with pytest.raises(client.exceptions.InvalidParameterValueException):
        client.create_function(FunctionName="wrong", Code={"ImageUri": "x"}, Handler="a.b", **given)
    _, made = service.request("POST", "/v1/keys", {"name": "other", "role": "user"})
    _, pair = service.request("GET", "/v1/credentials", key=made["key"])
    user = connected(service, pair)
    # The host's disk is not for every user to look at.
    with pytest.raises(user.exceptions.ClientError) as caught:
        user.create_function(FunctionName="wrong", Code={"ImageUri": f"oci:{tmp_path}/layout"}, **given)
    assert caught.value.response["Error"]["Code"] == "AccessDeniedException"


def test_functions_without_an_image_start_from_base(service: Service, program: bytes, tmp_path: Path) -> None:
    client = connected(service)
    root = Path(tempfile.mkdtemp(dir="/var/tmp"))
    try:
        root.chmod(0o755)
        (root / "of-base").write_bytes(program)
        (root / "of-base").chmod(0o755)
        for name in ("tmp", "var", "proc", "dev", "root"):
            (root / name).mkdir()
        assert service.request("POST", "/v1/templates", {"name": "base", "root": str(root)})[0] == 201
        given: dict[str, Any] = {"Runtime": "provided.al2023", "Handler": "x", "Role": "any", "Timeout": 20}
        archive = zipped({"bootstrap": "#!/of-base own\n"}, 0o755)
        client.create_function(FunctionName="based", Code={"ZipFile": archive}, Environment={"Variables": {"COLOUR": "blue"}}, **given)
        assert call(client, "based", {})[0]["arguments"] == "own /var/task/bootstrap"
    finally:
        client.delete_function(FunctionName="based")
        service.request("DELETE", "/v1/templates/base")
        shutil.rmtree(root)
