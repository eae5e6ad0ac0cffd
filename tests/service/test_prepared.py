"""Templates that have sandboxes started in advance."""

from __future__ import annotations

import signal

import pytest
from e2b import Sandbox
from harness import eventually
from running_service import Service, set_e2b


def waiting(service: Service) -> int:
    lines = service.request("GET", "/metrics")[1].decode().splitlines()
    return int(float(next(line.split()[1] for line in lines if line.startswith("cloudpilot_sandboxes_waiting "))))


def prepare(service: Service, count: int) -> None:
    status, answer = service.request("POST", "/v1/templates", {"name": "base", "prepared": count, "memory_mb": 256})
    assert (status, answer["prepared"]) == (201, count)
    eventually(lambda: waiting(service) == count, patience=90)


def test_what_waits_is_handed_out_and_replaced(own_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    set_e2b(own_service, monkeypatch)
    prepare(own_service, 2)
    ready = set(own_service.sandboxes_left())
    assert len(ready) == 2
    # Nobody sees those that wait.
    assert own_service.request("GET", "/v1/sandboxes")[1]["sandboxes"] == []
    sandbox = Sandbox.create(timeout=60, envs={"A": "b"}, metadata={"m": "1"})
    assert sandbox.sandbox_id in ready
    assert sandbox.commands.run("echo $A; hostname; cat /sys/fs/cgroup/memory.max").stdout == f"b\n{sandbox.sandbox_id}\n{256 << 20}\n"
    assert sandbox.get_info().metadata == {"m": "1"}
    eventually(lambda: waiting(own_service) == 2, patience=90)
    assert len(own_service.sandboxes_left()) == 3
    short = Sandbox.create(timeout=1)
    eventually(lambda: not short.is_running())
    assert own_service.request("DELETE", "/v1/templates/base")[0] == 204
    eventually(lambda: own_service.sandboxes_left() == [sandbox.sandbox_id], patience=90)
    assert sandbox.commands.run("echo lives").stdout == "lives\n"
    sandbox.kill()


def test_what_waits_ends_with_the_service_and_what_is_used_does_not(own_service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    set_e2b(own_service, monkeypatch)
    prepare(own_service, 2)
    sandbox = Sandbox.create(timeout=60)
    sandbox.files.write("/tmp/kept", "yes")
    eventually(lambda: waiting(own_service) == 2, patience=90)
    own_service.stop(signal.SIGKILL)
    eventually(lambda: own_service.sandboxes_left() == [sandbox.sandbox_id])
    own_service.start()
    assert sandbox.files.read("/tmp/kept") == "yes"
    eventually(lambda: waiting(own_service) == 2, patience=90)
    sandbox.kill()
    assert own_service.stop(signal.SIGTERM) == 0
    eventually(lambda: own_service.sandboxes_left() == [])
