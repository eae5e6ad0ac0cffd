"""Templates: built by E2B's unmodified client, and over our own API; images and the tasks that long operations are."""

from __future__ import annotations

import json
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import small_image
from e2b import BuildException, Sandbox, Template, wait_for_file, wait_for_timeout
from running_service import Service

pytestmark = pytest.mark.timeout(360)
TASK_PATIENCE = 60.0


@pytest.fixture(scope="module")
def base(service: Service, tmp_path_factory: pytest.TempPathFactory) -> None:
    """`base` is a small image here."""
    small_image.install(service.directory / "data" / "images", tmp_path_factory.mktemp("image") / "layout")


@pytest.fixture
def e2b(base: None, e2b_environment: None) -> None:
    """E2B's client, and a `base` to build on."""


def finished(service: Service, task: dict[str, Any]) -> dict[str, Any]:
    """A task that is over."""
    deadline = time.monotonic() + TASK_PATIENCE
    while task["state"] == "running":
        assert time.monotonic() < deadline, task
        time.sleep(0.05)
        task = service.request("GET", f"/v1/tasks/{task['id']}")[1]
    return task


def followed(service: Service, task_id: str, **headers: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """A task's server-sent events."""
    request = urllib.request.Request(f"{service.url}/v1/tasks/{task_id}/events", headers={"X-API-Key": service.key, **headers})
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        for block in response.read().decode().strip().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines())
            yield fields["event"], json.loads(fields["data"])


# E2B's client.


def test_base_is_the_image(e2b: None) -> None:
    with Sandbox.create() as sandbox:
        done = sandbox.commands.run("id -un; pwd; echo $FROM_IMAGE; cat /etc/old; touch made && stat -c %u made")
        assert done.stdout.split() == ["user", "/home/user", "yes", "old", "1000"]
        assert sandbox.commands.run("id -u", user="root").stdout == "0\n"
        sandbox.files.write("relative.txt", "x")
        assert sandbox.files.read("/home/user/relative.txt") == "x"


def test_build(e2b: None, tmp_path: Path) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "main.sh").write_text("echo from the app")
    (tmp_path / "app" / "deep").mkdir()
    (tmp_path / "app" / "deep" / "data").write_text("1\n2\n3\n")
    (tmp_path / "single.txt").write_text("single")
    template = (
        Template(file_context_path=tmp_path)
        .from_base_image()
        .set_envs({"COLOUR": "blue", "WORDS": "two words"})
        .run_cmd("echo made by $(id -un) $COLOUR > made && rm /etc/old || echo cannot remove >> made")
        .run_cmd(["rm /etc/old /srv/one", "mkdir -p /opt/x", "ln /etc/passwd /opt/x/passwd", "chmod 750 /srv"], user="root")
        .set_workdir("/work/dir")
        .copy("app", "app")
        .copy("single.txt", "/opt/renamed.txt", user="root", mode=0o640)
        .copy("single.txt", "into/")
        .make_symlink("/opt/x", "link")
        .set_start_cmd("sleep 0.3; touch /tmp/started; sleep 1000", wait_for_file("/tmp/started"))
    )
    lines: list[str] = []
    info = Template.build(template, "mine:v1", tags=["v2"], memory_mb=256, on_build_logs=lambda entry: lines.append(entry.message))
    assert any("RUN echo made by" in line for line in lines), lines
    assert Template.exists("mine")
    assert not Template.exists("nothing-of-that-name")
    assert {tag.tag for tag in Template.get_tags("mine")} == {"v1", "v2"}
    with Sandbox.create("mine:v1") as sandbox:
        run = lambda command, **more: sandbox.commands.run(command, **more).stdout  # noqa: E731
        assert run("cat /home/user/made") == "made by user blue\ncannot remove\n"
        assert run("pwd; echo $COLOUR $WORDS; id -un") == "/work/dir\nblue two words\nuser\n"
        assert run("ls -A /srv || true", user="root") == ""
        assert run("test -e /etc/old || echo gone") == "gone\n"
        assert run("stat -c '%a %u:%g' /srv /opt/renamed.txt /work/dir/app/deep/data").split() == [
            "750", "0:0", "640", "0:0", "644", "1000:1000",
        ]  # fmt: skip
        assert run("cat app/main.sh app/deep/data into/single.txt") == "echo from the app1\n2\n3\nsingle"
        assert run("readlink link; wc -l < link/passwd") == "/opt/x\n2\n"
        # It was ready when `create` returned.
        assert run("ls /tmp/started") == "/tmp/started\n"
    assert Template.assign_tags("mine:v1", "stable").tags == ["stable"]
    with Sandbox.create("mine:stable") as sandbox:
        assert sandbox.commands.run("pwd").stdout == "/work/dir\n"
    Template.remove_tags("mine", ["stable", "v2"])
    assert {tag.tag for tag in Template.get_tags("mine")} == {"v1"}
    assert info.template_id == "mine"


def test_build_on_a_template(e2b: None) -> None:
    Template.build(Template().from_base_image().set_envs({"A": "1"}).run_cmd("echo one > one"), "first")
    Template.build(Template().from_template("first").set_envs({"B": "2"}).run_cmd("echo $A$B > two; rm one"), "second")
    with Sandbox.create("second") as sandbox:
        assert sandbox.commands.run("cat two; ls; echo $A$B").stdout == "12\ntwo\n12\n"
    with Sandbox.create("first") as sandbox:
        assert sandbox.commands.run("cat one; ls").stdout == "one\none\n"


def test_the_same_again_is_quick(e2b: None) -> None:
    template = Template().from_base_image().run_cmd("cat /proc/sys/kernel/random/uuid > number")
    numbers = []
    for name, skip in (("again-1", False), ("again-2", False), ("again-3", True)):
        Template.build(template, name, skip_cache=skip)
        with Sandbox.create(name) as sandbox:
            numbers.append(sandbox.commands.run("cat number").stdout)
    assert numbers[0] == numbers[1] != numbers[2]


def test_a_step_that_fails(e2b: None) -> None:
    template = Template().from_base_image().run_cmd("echo fine").run_cmd("echo the reason >&2; exit 3").run_cmd("echo never")
    lines: list[Any] = []
    with pytest.raises(BuildException, match="status 3"):
        Template.build(template, "fails", on_build_logs=lines.append)
    assert any(line.message == "the reason" and line.level == "warn" for line in lines)
    assert not any(line.message == "never" for line in lines)
    assert not Template.exists("fails")


def test_a_start_that_is_never_ready(service: Service, e2b: None) -> None:
    info = Template.build_in_background(Template().from_base_image().set_start_cmd("exit 1", "sleep 0.2; false"), "never-ready")
    assert Template.get_build_status(info).status.value in ("building", "waiting")
    # It would be tried for a minute.
    assert service.request("DELETE", f"/v1/tasks/{info.build_id}")[0] == 204
    assert Template.get_build_status(info).status.value == "error"


def test_a_registry_is_refused_with_a_remedy(e2b: None) -> None:
    with pytest.raises(BuildException, match="pilot image import"):
        Template.build(Template().from_image("python:3.12").run_cmd("true"), "pulled")
    with pytest.raises(BuildException, match="registries"):
        Template.build(Template().from_image("private/x", username="a", password="b"), "pulled")


def test_users_of_other_projects_see_nothing(service: Service, base: None, monkeypatch: pytest.MonkeyPatch) -> None:
    service.request("POST", "/v1/projects", {"name": "other"})
    key = service.request("POST", "/v1/keys", {"name": "other", "role": "user", "project": "other"})[1]["key"]
    status, task = service.request("POST", "/v1/builds", {"name": "secret", "steps": [{"kind": "RUN", "args": ["echo 1"]}]})
    assert status == 202
    assert finished(service, task)["state"] == "succeeded"
    assert service.request("GET", f"/v1/tasks/{task['id']}", key=key)[0] == 404
    assert service.request("GET", "/templates/aliases/secret", key=key)[0] == 404
    assert service.request("POST", "/v2/sandboxes", {"templateID": "secret"}, key=key)[0] == 404
    assert service.request("POST", "/v1/builds", {"name": "secret"}, key=key)[0] == 403
    assert "secret" not in {each["name"] for each in service.request("GET", "/v1/templates", key=key)[1]["templates"]}


@pytest.mark.parametrize("name", ["Upper", "a b", "", "../x", "a:b:c", "x" * 100])
def test_names(service: Service, name: str) -> None:
    assert service.request("POST", "/v3/templates", {"name": name})[0] == 400


def test_uploads_need_their_signature(service: Service, base: None) -> None:
    digits = "0" * 64
    status, link = service.request("GET", f"/templates/x/files/{digits}")
    assert (status, link["present"]) == (201, False)
    path = link["url"].removeprefix(service.url)
    assert service.request("PUT", path.replace("signature=", "signature=x"), b"data", key="")[0] == 403
    assert service.request("PUT", path.replace("0000", "1111"), b"data", key="")[0] == 403
    assert service.request("PUT", path, b"data", key="")[0] == 200
    assert service.request("GET", f"/templates/x/files/{digits}")[1]["present"]
    assert service.request("GET", "/templates/x/files/..%2f..%2fetc")[0] in (400, 404)


# Our own API.


def test_images_and_tasks(service: Service, tmp_path: Path) -> None:
    path = small_image.layout(tmp_path / "layout")
    status, task = service.request("POST", "/v1/images", {"path": str(path), "tag": "small", "name": "small"})
    assert status == 202
    task = finished(service, task)
    assert (task["state"], task["progress"], task["result"]["image"]) == ("succeeded", 1.0, "small:latest")
    (image,) = [each for each in service.request("GET", "/v1/images")[1]["images"] if each["name"] == "small:latest"]
    assert image["config"]["user"] == "user"
    kinds = list(followed(service, task["id"]))
    assert kinds[-1][0] == "end"
    assert kinds[-1][1]["state"] == "succeeded"
    assert [data["id"] for kind, data in kinds[:-1]] == list(range(1, len(kinds)))
    last = kinds[-2][1]["id"]
    assert [kind for kind, _ in followed(service, task["id"], **{"Last-Event-ID": str(last)})] == ["end"]
    assert task["id"] in {each["id"] for each in service.request("GET", "/v1/tasks")[1]["tasks"]}
    status, template = service.request("POST", "/v1/templates", {"name": "of-image", "image": "small", "start_command": "touch /tmp/s"})
    assert (status, template["image"]) == (201, "small")
    status, sandbox = service.request("POST", "/v1/sandboxes", {"template": "of-image"})
    assert status == 201
    status, done = service.request("POST", f"/v1/sandboxes/{sandbox['id']}/commands", {"args": ["/bin/sh", "-c", "id -un; pwd"]})
    assert done["stdout"] == "user\n/home/user\n"
    assert service.request("DELETE", f"/v1/sandboxes/{sandbox['id']}")[0] == 204
    assert service.request("DELETE", "/v1/images?name=small")[0] == 204
    assert service.request("DELETE", "/v1/images?name=small")[0] == 404
    assert service.request("POST", "/v1/sandboxes", {"template": "of-image"})[0] == 404


def test_an_import_that_fails(service: Service) -> None:
    task = finished(service, service.request("POST", "/v1/images", {"path": "/nowhere"})[1])
    assert (task["state"], task["error"]["code"]) == ("failed", "not_found")
    assert task["error"]["remedy"]
    assert service.request("DELETE", f"/v1/tasks/{task['id']}")[0] == 409


def test_a_task_is_stopped(service: Service, base: None) -> None:
    task = service.request("POST", "/v1/builds", {"name": "slow", "steps": [{"kind": "RUN", "args": ["sleep 100"]}]})[1]
    assert service.request("DELETE", f"/v1/tasks/{task['id']}")[0] == 204
    assert service.request("GET", f"/v1/tasks/{task['id']}")[1]["state"] == "cancelled"
    deadline = time.monotonic() + 90
    while service.sandboxes_left():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_only_admins_add_from_the_host(service: Service) -> None:
    key = service.request("POST", "/v1/keys", {"name": "u", "role": "user"})[1]["key"]
    assert service.request("POST", "/v1/images", {"path": "/"}, key=key)[0] == 403
    assert service.request("POST", "/v1/templates", {"name": "x", "root": "/"}, key=key)[0] == 403


def test_a_restart_marks_what_it_cut_off(own_service: Service, tmp_path: Path) -> None:
    small_image.install(own_service.directory / "data" / "images", tmp_path / "layout")
    task = own_service.request("POST", "/v1/builds", {"name": "slow", "steps": [{"kind": "RUN", "args": ["sleep 100"]}]})[1]
    own_service.stop(9)
    own_service.start()
    after = own_service.request("GET", f"/v1/tasks/{task['id']}")[1]
    assert (after["state"], after["error"]["code"]) == ("failed", "interrupted")
    deadline = time.monotonic() + 90
    while own_service.sandboxes_left():
        assert time.monotonic() < deadline, "the build's sandbox outlived its build"
        time.sleep(0.1)


def test_without_an_image_base_says_what_it_is(own_service: Service) -> None:
    (base,) = [each for each in own_service.request("GET", "/v1/templates")[1]["templates"] if each["name"] == "base"]
    assert "pilot image build base" in base["note"]
    status, refusal = own_service.request("POST", "/v1/builds", {"name": "x"})
    assert status == 409
    assert "pilot image build base" in refusal["error"]["remedy"]


def test_waiting_for_time(e2b: None) -> None:
    Template.build(Template().from_base_image().set_start_cmd("touch /tmp/a", wait_for_timeout(100)), "timed")
    with Sandbox.create("timed") as sandbox:
        assert sandbox.files.exists("/tmp/a")
