"""Our own API: what it gives, what it refuses and how, its description, roles, the audit log, figures; and bad input on all of them."""

from __future__ import annotations

import http.client
import json
import socket
import time
from typing import Any

import pytest
import schemathesis
from e2b import Sandbox
from harness import eventually
from hypothesis import HealthCheck, Phase, settings
from running_service import Service
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance


def _new(service: Service, **more: Any) -> str:
    status, made = service.request("POST", "/v1/sandboxes", more)
    assert status == 201, made
    identifier: str = made["id"]
    return identifier


def _end_all(service: Service) -> None:
    for each in service.request("GET", "/v1/sandboxes?limit=1000")[1]["sandboxes"]:
        service.request("DELETE", f"/v1/sandboxes/{each['id']}")


def _refused(service: Service, *request: Any, status: int, **more: Any) -> dict[str, Any]:
    got, answer = service.request(*request, **more)
    assert got == status, (got, answer)
    error: dict[str, Any] = answer["error"]
    assert error["message"]
    assert error["remedy"]
    return error


def test_a_sandbox(service: Service) -> None:
    name = _new(service, metadata={"a": "b"}, env={"X": "y"}, timeout=100)
    path = f"/v1/sandboxes/{name}"
    assert service.request("GET", path)[1]["metadata"] == {"a": "b"}
    status, result = service.request("POST", f"{path}/commands", {"args": ["sh", "-c", "echo $X; cat; echo e >&2; exit 3"], "stdin": "in"})
    assert (status, result) == (200, {"exit_code": 3, "stdout": "y\nin", "stderr": "e\n", "truncated": False})
    assert service.request("PUT", f"{path}/files?path=/tmp/f", b"contents")[1] == {"path": "/tmp/f", "size": 8}
    assert service.request("GET", f"{path}/files?path=/tmp/f")[1] == b"contents"
    assert _refused(service, "GET", f"{path}/files?path=/tmp/none", status=404)["code"] == "not_found"
    stats = service.request("GET", f"{path}/stats")[1]
    assert stats["memory_bytes"] > 0
    assert stats["storage"]["read_bytes"] > 0
    assert stats["network"] == {"received_bytes": 0, "sent_bytes": 0, "received_packets": 0, "sent_packets": 0}
    assert any("started" in line["message"] for line in service.request("GET", f"{path}/log")[1]["lines"])
    before = service.request("GET", path)[1]["end_at"]
    assert service.request("PATCH", path, {"timeout": 1000})[1]["end_at"] > before + 800
    error = _refused(service, "POST", f"{path}/commands", {"args": ["sleep", "60"], "timeout": 0.5}, status=504)
    assert error["field"] == "timeout"
    _, much = service.request("POST", f"{path}/commands", {"args": ["head", "-c", "3000000", "/dev/zero"]})
    assert much["truncated"]
    assert len(much["stdout"]) == 1 << 20
    assert service.request("DELETE", path)[0] == 204
    _refused(service, "GET", path, status=404)


def test_the_previous_paths_of_e2b(service: Service) -> None:
    _end_all(service)
    status, made = service.request("POST", "/sandboxes", {"templateID": "base", "metadata": {"a": "b"}, "autoPause": False})
    assert status == 201
    path = f"/sandboxes/{made['sandboxID']}"
    assert [each["sandboxID"] for each in service.request("GET", "/sandboxes?metadata=a%3Db")[1]] == [made["sandboxID"]]
    assert service.request("GET", "/sandboxes?metadata=a%3Dc")[1] == []
    assert service.request("POST", f"{path}/refreshes", {"duration": 600})[0] == 204
    assert service.request("GET", path)[1]["state"] == "running"
    lines = service.request("GET", f"{path}/logs")[1]
    assert lines["logs"][0]["line"] == lines["logEntries"][0]["message"]
    assert service.request("POST", f"{path}/pause", {})[0] == 501
    again = [service.request("POST", "/sandboxes", {"templateID": "base"}, headers={"Idempotency-Key": "k"})[1] for _ in range(2)]
    assert again[0]["sandboxID"] == again[1]["sandboxID"]
    assert service.request("DELETE", path)[0] == 204
    assert service.request("DELETE", path)[0] == 404
    _end_all(service)


def test_pages(service: Service) -> None:
    _end_all(service)
    made = [_new(service) for _ in range(3)]
    first = service.request("GET", "/v1/sandboxes?limit=2")[1]
    second = service.request("GET", f"/v1/sandboxes?limit=2&after={first['next']}")[1]
    assert [each["id"] for each in first["sandboxes"] + second["sandboxes"]] == made
    assert second["next"] is None
    _end_all(service)


def test_refusals_name_the_field_and_the_remedy(service: Service) -> None:
    assert _refused(service, "POST", "/v1/sandboxes", {"timeout": "long"}, status=400)["field"] == "timeout"
    assert _refused(service, "POST", "/v1/sandboxes", {"timeout": 10**9}, status=400)["field"] == "timeout"
    assert _refused(service, "POST", "/v1/sandboxes", {"tmeout": 1}, status=400)["field"] == "tmeout"
    assert _refused(service, "POST", "/v1/sandboxes", {"template": "none"}, status=404)["field"] == "template"
    assert _refused(service, "POST", "/v1/sandboxes", b"{", status=400)["code"] == "invalid_argument"
    assert _refused(service, "GET", "/v1/sandboxes?limit=0", status=400)["field"] == "limit"
    assert _refused(service, "GET", "/v1/sandboxes", status=401, key="")["code"] == "unauthenticated"
    assert _refused(service, "POST", "/v1/templates", {"name": "t", "root": "/none"}, status=400)["field"] == "root"
    assert _refused(service, "POST", "/v1/sandboxes", b"x" * (2 << 20), status=413)["code"] == "too_large"
    assert service.request("GET", "/none")[0] == 404
    assert service.request("DELETE", "/v1/sandboxes")[0] == 405


def test_quotas(service: Service) -> None:
    status, made = service.request("POST", "/v1/projects", {"name": "bounded", "most_memory_mb": 1500, "most_cpus": 64})
    assert status == 201
    assert (made["most_memory_mb"], made["most_functions"]) == (1500, 1000)
    key = service.request("POST", "/v1/keys", {"name": "k", "role": "user", "project": "bounded"})[1]["key"]
    first = service.request("POST", "/v1/sandboxes", {}, key=key)[1]["id"]
    error = _refused(service, "POST", "/v1/sandboxes", {}, status=429, key=key)
    assert "1500 MiB of memory" in error["message"]
    assert "most_memory_mb" in error["remedy"]
    assert service.request("PATCH", "/v1/projects/bounded", {"most_memory_mb": None})[1]["most_memory_mb"] is None
    second = service.request("POST", "/v1/sandboxes", {}, key=key)[1]["id"]
    changed = service.request("PATCH", "/v1/projects/bounded", {"most_cpus": 1})[1]
    assert (changed["most_cpus"], changed["most_memory_mb"]) == (1, None)
    assert "CPUs" in _refused(service, "POST", "/v1/sandboxes", {}, status=429, key=key)["message"]
    for sandbox in (first, second):
        assert service.request("DELETE", f"/v1/sandboxes/{sandbox}", key=key)[0] == 204
    _refused(service, "PATCH", "/v1/projects/none", {"most_cpus": 1}, status=404)


def test_roles_and_projects(service: Service) -> None:
    assert service.request("POST", "/v1/projects", {"name": "team", "most_sandboxes": 5})[0] == 201
    _refused(service, "POST", "/v1/projects", {"name": "team"}, status=409)
    keys = {}
    for role in ("read-only", "user"):
        status, made = service.request("POST", "/v1/keys", {"name": role, "role": role, "project": "team"})
        assert status == 201
        keys[role] = made
    _refused(service, "POST", "/v1/keys", {"name": "x", "project": "none"}, status=404)
    looker, user = keys["read-only"]["key"], keys["user"]["key"]
    error = _refused(service, "POST", "/v1/sandboxes", {}, status=403, key=looker)
    assert "`user`" in error["remedy"]
    _, made = service.request("POST", "/v1/sandboxes", {}, key=user)
    assert made["project"] == "team"
    assert service.request("GET", f"/v1/sandboxes/{made['id']}", key=looker)[0] == 200
    assert service.request("GET", f"/v1/sandboxes/{made['id']}")[0] == 404
    _refused(service, "GET", "/v1/keys", status=403, key=user)
    _refused(service, "DELETE", f"/v1/sandboxes/{made['id']}", status=403, key=looker)
    assert service.request("DELETE", f"/v1/sandboxes/{made['id']}", key=user)[0] == 204
    assert service.request("DELETE", f"/v1/keys/{keys['user']['id']}")[0] == 204
    _refused(service, "GET", "/v1/sandboxes", status=401, key=user)
    listed = service.request("GET", "/v1/keys")[1]["keys"]
    assert not any("key" in each for each in listed)
    own = next(each for each in listed if each["name"] == "first key")
    _refused(service, "DELETE", f"/v1/keys/{own['id']}", status=409)


def test_who_changed_what_is_written_down(service: Service) -> None:
    name = _new(service)
    service.request("DELETE", f"/v1/sandboxes/{name}")
    entries = service.request("GET", "/v1/audit?limit=20")[1]["entries"]
    actions = [each["action"] for each in entries if each["target"] == name]
    assert {"sandbox.create", "sandbox.kill", "sandbox.ended"} <= set(actions)
    created = next(each for each in entries if each["target"] == name and each["action"] == "sandbox.create")
    assert created["key"]
    assert abs(created["time"] - time.time()) < 60
    older = service.request("GET", f"/v1/audit?limit=5&before={entries[0]['id']}")[1]["entries"]
    assert older[0]["id"] == entries[1]["id"]


def test_templates_are_ready_when_create_returns(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    from running_service import set_e2b

    template = {
        "name": "server",
        "start_command": "sleep 0.7; touch /tmp/up; exec sleep 1000",
        "ready_command": "test -e /tmp/up",
        "envs": {"FROM": "template"},
        "memory_mb": 256,
    }
    assert service.request("POST", "/v1/templates", template)[0] == 201
    assert "server" in [each["name"] for each in service.request("GET", "/v1/templates")[1]["templates"]]
    set_e2b(service, monkeypatch)
    with Sandbox.create("server") as sandbox:
        assert sandbox.files.exists("/tmp/up")
        assert sandbox.commands.run("echo $FROM").stdout == "template\n"
        assert sandbox.get_info().memory_mb == 256
        assert [each.tag for each in sandbox.commands.list()] == ["start_command"]
    never = {"name": "never", "ready_command": "false", "ready_timeout": 0.5}
    service.request("POST", "/v1/templates", never)
    error = _refused(service, "POST", "/v1/sandboxes", {"template": "never"}, status=504)
    assert "ready_command" in error["remedy"]
    assert service.request("DELETE", "/v1/templates/server")[0] == 204
    _refused(service, "DELETE", "/v1/templates/server", status=404)


def test_figures_description_and_page(service: Service) -> None:
    _end_all(service)
    # One that could not be started may still be about to go.
    eventually(lambda: b"cloudpilot_sandboxes 0.0" in service.request("GET", "/metrics")[1])
    text = service.request("GET", "/metrics")[1].decode()
    assert "cloudpilot_http_requests_total" in text
    assert service.request("GET", "/openapi.json")[1]["openapi"].startswith("3.1")
    assert b"<title>Cloudpilot API" in service.request("GET", "/docs")[1]
    for line in service.log_text().splitlines():
        assert {"time", "level", "message"} <= json.loads(line).keys()


@pytest.mark.timeout(720)  # it asks some hundred times, whatever the machine does besides
def test_the_description_holds_under_generated_requests(service: Service) -> None:
    schema = schemathesis.openapi.from_url(service.url + "/openapi.json")
    checks = [not_a_server_error, status_code_conformance, response_schema_conformance]
    quick = settings(
        max_examples=8, phases=[Phase.explicit, Phase.generate], deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    count = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)

        def check(case) -> None:  # type: ignore[no-untyped-def]
            # The one might remove our own key, the other would install Debian.
            if (case.method, case.path) in (("DELETE", "/v1/keys/{id}"), ("POST", "/v1/images")):
                return
            if isinstance(case.body, dict) and isinstance(case.body.get("prepared"), int) and case.body["prepared"] > 0:
                # A template or two that have as many sandboxes started as may be would keep the machine busy for the tests that follow.
                case.body["prepared"] = 0
            case.call_and_validate(headers={"X-API-Key": service.key}, checks=checks, timeout=30)

        result.ok().as_strategy().map(lambda case: case)
        from hypothesis import given

        quick(given(result.ok().as_strategy())(check))()
        count += 1
    assert count > 15
    _end_all(service)


ENVELOPES = [b"", b"\x00", b"\x00\xff\xff\xff\xff", b"\x01\x00\x00\x00\x02{}", b"\x00\x00\x00\x00\x01{", b"\x00\x00\x00\x00\x02[]"]


def test_bad_messages_get_errors_and_leave_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    from running_service import set_e2b

    set_e2b(service, monkeypatch)
    with Sandbox.create() as sandbox:
        headers = {"e2b-sandbox-id": sandbox.sandbox_id, "X-Access-Token": sandbox._envd_access_token or ""}
        for body in ENVELOPES:
            for method in ("process.Process/Start", "process.Process/Connect", "filesystem.Filesystem/WatchDir"):
                status, answer = service.request("POST", f"/{method}", body, headers=headers)
                assert status == 200
                assert b'"error"' in answer, (body, answer)
        for method in ("process.Process/SendInput", "process.Process/Update", "filesystem.Filesystem/Stat", "filesystem.Filesystem/Move"):
            for body in (b"{", b"[]", b"null", b"[" * 100_000, b'{"path":5,"process":7,"source":{}}', b'{"process":{"pid":"x"}}'):
                status, answer = service.request("POST", f"/{method}", body, headers=headers)
                assert 400 <= status < 500, (method, body, status, answer)
        assert service.request("POST", "/files?path=/tmp/x", b"not gzip", headers={**headers, "Content-Encoding": "gzip"})[0] == 400
        assert service.request("GET", "/files?path=%00", headers=headers)[0] == 400
        assert service.request("GET", "/files", headers=headers)[0] == 400
        for name in ("../x", "/etc", "a" * 5000):
            assert 400 <= service.request("GET", f"/files?path={name}", headers=headers)[0] < 500
        assert sandbox.commands.list() == []


def test_clients_that_hang_up_leave_nothing(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    from running_service import set_e2b

    set_e2b(service, monkeypatch)
    with Sandbox.create() as sandbox:
        body = json.dumps({"process": {"cmd": "/bin/sh", "args": ["-c", "head -c 100000000 /dev/zero; echo done > /tmp/done"]}}).encode()
        framed = b"\0" + len(body).to_bytes(4, "big") + body
        assert service.process is not None
        descriptors = f"/proc/{service.process.pid}/fd"
        import os

        before = len(os.listdir(descriptors))
        for _ in range(5):
            connection = http.client.HTTPConnection("127.0.0.1", service.port)
            headers = {
                "e2b-sandbox-id": sandbox.sandbox_id,
                "X-Access-Token": sandbox._envd_access_token or "",
                "Content-Type": "application/connect+json",
            }
            connection.request("POST", "/process.Process/Start", framed, headers)
            response = connection.getresponse()
            response.read(10)
            response.close()
            connection.close()
        uploading = socket.create_connection(("127.0.0.1", service.port))
        token = sandbox._envd_access_token
        uploading.sendall(
            f"POST /files?path=/tmp/half HTTP/1.1\r\nHost: x\r\ne2b-sandbox-id: {sandbox.sandbox_id}\r\nX-Access-Token: {token}\r\n"
            "Content-Type: application/octet-stream\r\nContent-Length: 100000\r\n\r\nonly this".encode()
        )
        time.sleep(0.1)
        uploading.close()
        deadline = time.monotonic() + 90
        while sandbox.commands.list() or len(os.listdir(descriptors)) > before:
            assert time.monotonic() < deadline, (sandbox.commands.list(), before, os.listdir(descriptors))
            time.sleep(0.05)
        assert sandbox.files.exists("/tmp/done")
        assert not sandbox.files.exists("/tmp/half")
