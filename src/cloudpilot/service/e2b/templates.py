"""E2B's API of templates: built from what its `Template` says, found by names and tags."""

from __future__ import annotations

import hmac
import re
import time
import uuid
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloudpilot.hosting.access import Caller
from cloudpilot.hosting.builds import Build, Builds, Step
from cloudpilot.hosting.failures import Failure, Kind
from cloudpilot.hosting.limits import DEFAULT_MEMORY_MB
from cloudpilot.hosting.tasks import Task
from cloudpilot.hosting.templates import DEFAULT_TAG, Template, Templates, plain
from cloudpilot.service.e2b import ENVD_VERSION
from cloudpilot.service.e2b.control import Model, time_text
from cloudpilot.service.http import body, caller_of, parse, reply

LARGEST_BUILD = 8 << 20
"""Bytes of a build's description: scripts stand in its steps."""
MOST_LOGS = 100
"""Lines of a build's log in one answer, as with E2B; its client asks until there are no more."""
MOST_TAGS = 32
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}(:[A-Za-z0-9][A-Za-z0-9._-]{0,62})?")
_STATES = {"running": "building", "succeeded": "ready"}
_DISK_MB = 0


class BuildRequest(Model):
    """A template that shall be built."""

    name: str | None = None
    alias: str | None = None
    tags: list[str] = Field([], max_length=MOST_TAGS)
    cpu_count: Annotated[int | None, Field(alias="cpuCount", ge=1, le=1024)] = None
    memory_mb: Annotated[int | None, Field(alias="memoryMB", ge=16, le=1 << 20)] = None


class BuildStep(Model):
    """One step."""

    type: str
    args: list[str] = Field([])
    files_hash: Annotated[str | None, Field(alias="filesHash")] = None
    force: bool = False


class BuildStart(Model):
    """How it is built."""

    from_image: Annotated[str | None, Field(alias="fromImage")] = None
    from_template: Annotated[str | None, Field(alias="fromTemplate")] = None
    registry: Annotated[Any, Field(alias="fromImageRegistry")] = None
    force: bool = False
    steps: list[BuildStep] = Field([])
    start_command: Annotated[str | None, Field(alias="startCmd")] = None
    ready_command: Annotated[str | None, Field(alias="readyCmd")] = None


class Tags(Model):
    """Tags that a build shall have."""

    target: str
    tags: Annotated[list[str], Field(max_length=MOST_TAGS)]


class LostTags(Model):
    """Tags that shall be no more."""

    name: str
    tags: Annotated[list[str], Field(max_length=MOST_TAGS)]


def _checked(name: str, field: str = "name") -> str:
    if not _NAME.fullmatch(name):
        remedy = "small letters, digits and `-._`, and perhaps `:TAG`"
        raise Failure(Kind.INVALID, f"`{name[:100]}` is not a name for a template", field=field, remedy=remedy)
    return name


def _templates(request: Request) -> Templates:
    templates: Templates = request.app.state.templates
    return templates


def _builds(request: Request) -> Builds:
    builds: Builds = request.app.state.builds
    return builds


def _found(request: Request, name: str, caller: Caller) -> Template:
    found = _templates(request).find(name, caller.project)
    if found is None:
        raise Failure(Kind.NOT_FOUND, f"There is no template `{name}`", field="templateID", remedy="build it, or use `base`")
    return found


# Building.


async def request_build(request: Request) -> Response:
    """`POST /v3/templates`: names a template that is about to be built."""
    caller = caller_of(request, "user")
    given = parse(BuildRequest, await body(request))
    name = _checked(given.name or given.alias or "")
    base, _, tag = name.partition(":")
    tags = list(dict.fromkeys([*([tag] if tag else []), *given.tags])) or [DEFAULT_TAG]
    for each in tags:
        _checked(f"{base}:{each}", "tags")
        _templates(request).check_owner(f"{base}:{each}", caller.project, admin=caller.role == "admin")
    build_id = str(uuid.uuid4())
    value = {
        "project": caller.project, "template": base, "tags": tags, "created": time.time(),
        "cpus": given.cpu_count, "memory_mb": given.memory_mb or DEFAULT_MEMORY_MB,
    }  # fmt: skip
    request.app.state.store.transact({f"builds/{build_id}": value})
    return reply({"templateID": base, "buildID": build_id, "public": False, "names": [base], "tags": tags, "aliases": [base]}, 202)


def _requested(request: Request, caller: Caller) -> tuple[str, dict[str, Any]]:
    build_id = request.path_params["build"]
    entry = request.app.state.store.get(f"builds/{build_id}")
    if (
        entry is None
        or entry.value["project"] != caller.project
        or entry.value["template"] != plain(request.path_params["id"]).partition(":")[0]
    ):
        raise Failure(Kind.NOT_FOUND, f"There is no build `{build_id}`", remedy="POST /v3/templates makes one")
    return build_id, entry.value


async def start_build(request: Request) -> Response:
    """`POST /v2/templates/{id}/builds/{build}`: builds it."""
    caller = caller_of(request, "user")
    build_id, value = _requested(request, caller)
    given = parse(BuildStart, await body(request, LARGEST_BUILD))
    state = request.app.state
    if given.registry is not None:
        remedy = "add the image with `pilot image import`, and leave the registry's credentials out"
        raise Failure(Kind.NOT_SUPPORTED, "Nothing is pulled from registries", field="fromImageRegistry", remedy=remedy)
    if state.store.get(f"tasks/{build_id}") is not None:
        raise Failure(Kind.CONFLICT, f"The build `{build_id}` was started already", remedy="request another one")
    first, *others = value["tags"]
    template = Template(
        plain(f"{value['template']}:{first}"), start_command=given.start_command, ready_command=given.ready_command,
        memory_mb=value["memory_mb"], cpus=value["cpus"], network=state.templates.get("base").network, project=caller.project,
    )  # fmt: skip
    steps = [Step(step.type, step.args, step.files_hash) for step in given.steps]
    again = given.force or any(step.force for step in given.steps)
    build = Build(template, others, given.from_image, given.from_template, steps, again)
    builds = _builds(request)
    # What is missing is said at once rather than by a task.
    builds.base_of(build, caller.project)
    state.tasks.start(
        caller.project, "template.build", template.name, lambda progress: builds.run(build, caller.project, progress), build_id
    )
    state.access.note(caller, "template.build", template.name, build=build_id)
    return Response(status_code=202)


def _entries(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    levels = {"warning": "warn"}
    return [
        {
            "timestamp": time_text(event["time"]),
            "message": event["message"],
            "level": levels.get(event["level"], event["level"]),
            **({"step": event["step"]} if event["step"] else {}),
        }
        for event in events
    ]


def _reason(task: Task, events: list[dict[str, Any]]) -> dict[str, Any]:
    error = task.error or {"message": "The build was cancelled", "field": None, "remedy": None}
    message = error["message"] + (f" ({error['remedy']})" if error["remedy"] else "")
    step = (error["field"] or "").partition("steps.")[2]
    return {"message": message, **({"step": step} if step else {}), "logEntries": _entries(events[-MOST_LOGS:])}


async def build_status(request: Request) -> Response:
    """`GET /templates/{id}/builds/{build}/status`."""
    caller = caller_of(request)
    build_id, value = _requested(request, caller)
    tasks = request.app.state.tasks
    answer: dict[str, Any] = {"templateID": value["template"], "buildID": build_id, "logs": [], "logEntries": []}
    if request.app.state.store.get(f"tasks/{build_id}") is None:
        return reply({**answer, "status": "waiting"})
    text = request.query_params.get("logsOffset", "0")
    offset = int(text) if text.isascii() and text.isdigit() else 0
    task = tasks.get(build_id, caller.project)
    answer["status"] = _STATES.get(task.state, "error")
    answer["logEntries"] = _entries(tasks.events(build_id, offset, MOST_LOGS))
    if answer["status"] == "error":
        answer["reason"] = _reason(task, tasks.events(build_id))
    return reply(answer)


async def build_logs(request: Request) -> Response:
    """`GET /templates/{id}/builds/{build}/logs`."""
    caller = caller_of(request)
    build_id, _ = _requested(request, caller)
    return reply({"logs": _entries(request.app.state.tasks.events(build_id, limit=MOST_LOGS))})


# Files.


def _signature(request: Request, project: str, digits: str) -> str:
    token: str = request.app.state.access.sandbox_token(f"upload/{project}/{digits}")
    return token


async def file_link(request: Request) -> Response:
    """`GET /templates/{id}/files/{hash}`: where an archive is to be sent, unless it is here already."""
    caller = caller_of(request, "user")
    digits = request.path_params["hash"]
    path = f"/templates/files/{caller.project}/{digits}?signature={_signature(request, caller.project, digits)}"
    present = _builds(request).has_file(caller.project, digits)
    return reply({"present": present, "url": str(request.base_url).rstrip("/") + path}, 201)


async def take_file(request: Request) -> Response:
    """`PUT /templates/files/{project}/{hash}`: takes an archive. Its address is the permission to send it."""
    project, digits = request.path_params["project"], request.path_params["hash"]
    if not hmac.compare_digest(request.query_params.get("signature", "").encode(), _signature(request, project, digits).encode()):
        raise Failure(Kind.FORBIDDEN, "The signature is wrong", remedy="ask for the address again")
    await _builds(request).store_file(project, digits, request.stream())
    return Response(status_code=200)


# Looking.


def _shown(template: Template) -> dict[str, Any]:
    when = time_text(template.created)
    base = template.name.partition(":")[0]
    return {
        "templateID": base, "aliases": [base], "names": [base], "public": template.project is None, "envdVersion": ENVD_VERSION,
        "cpuCount": max(1, round(template.cpus or 1)), "memoryMB": template.memory_mb, "diskSizeMB": _DISK_MB,
        "buildID": template.build_id or str(uuid.uuid5(uuid.NAMESPACE_OID, template.name)), "buildCount": 1, "buildStatus": "ready",
        "spawnCount": 0, "lastSpawnedAt": None, "createdAt": when, "updatedAt": when, "createdBy": None,
    }  # fmt: skip


async def listing(request: Request) -> Response:
    """`GET /templates`."""
    caller = caller_of(request)
    return reply([_shown(each) for each in _templates(request).all(caller.project)])


async def detail(request: Request) -> Response:
    """`GET /templates/{id}`."""
    caller = caller_of(request)
    name = request.path_params["id"]
    found = _templates(request).tags(name, caller.project)
    if not found:
        _found(request, name, caller)
    shown = [_shown(each) for each in found]
    builds = [
        {name: each[name] for name in ("buildID", "createdAt", "updatedAt", "cpuCount", "memoryMB")}
        | {"status": "ready", "finishedAt": each["createdAt"], "diskSizeMB": _DISK_MB, "envdVersion": ENVD_VERSION}
        for each in shown
    ]
    return reply({**shown[0], "builds": builds})


async def alias(request: Request) -> Response:
    """`GET /templates/aliases/{alias}`."""
    caller = caller_of(request)
    name = request.path_params["alias"]
    found = _templates(request).tags(name, caller.project) if ":" not in name else [_found(request, name, caller)]
    template = found[0] if found else _found(request, name, caller)
    return reply({"templateID": template.name.partition(":")[0], "public": template.project is None})


async def change(request: Request) -> Response:
    """`PATCH /templates/{id}`: takes who may see it, which here is its project alone."""
    caller = caller_of(request, "user")
    template = _found(request, request.path_params["id"], caller)
    return reply({"names": [template.name]})


async def remove(request: Request) -> Response:
    """`DELETE /templates/{id}`: with all its tags."""
    caller = caller_of(request, "user")
    name = request.path_params["id"]
    templates = _templates(request)
    found = templates.tags(name, caller.project) if ":" not in name else [_found(request, name, caller)]
    if not found:
        _found(request, name, caller)
    for each in found:
        templates.check_owner(each.name, caller.project, admin=caller.role == "admin")
        templates.remove(each.name, caller.project)
    request.app.state.access.note(caller, "template.remove", name)
    return Response(status_code=204)


# Tags.


async def assign_tags(request: Request) -> Response:
    """`POST /templates/tags`."""
    caller = caller_of(request, "user")
    given = parse(Tags, await body(request))
    template = _found(request, given.target, caller)
    base = template.name.partition(":")[0]
    for tag in given.tags:
        name = _checked(f"{base}:{tag}", "tags")
        _templates(request).check_owner(name, caller.project, admin=caller.role == "admin")
        _templates(request).put(replace(template, name=name, created=time.time()))
    return reply({"tags": given.tags, "buildID": _shown(template)["buildID"]}, 201)


async def remove_tags(request: Request) -> Response:
    """`DELETE /templates/tags`."""
    caller = caller_of(request, "user")
    given = parse(LostTags, await body(request))
    for tag in given.tags:
        name = f"{given.name.partition(':')[0]}:{tag}"
        _templates(request).check_owner(name, caller.project, admin=caller.role == "admin")
        _templates(request).remove(name, caller.project)
    return Response(status_code=204)


async def list_tags(request: Request) -> Response:
    """`GET /templates/{id}/tags`."""
    caller = caller_of(request)
    found = _templates(request).tags(request.path_params["id"], caller.project)
    if not found:
        _found(request, request.path_params["id"], caller)
    return reply(
        [
            {
                "tag": each.name.partition(":")[2] or DEFAULT_TAG,
                "buildID": _shown(each)["buildID"],
                "createdAt": time_text(each.created),
            }
            for each in found
        ]
    )


def routes() -> list[Route]:
    """The API's routes."""
    return [
        Route("/v3/templates", request_build, methods=["POST"]),
        Route("/v2/templates", listing, methods=["GET"]),
        Route("/v2/templates/{id}/builds/{build}", start_build, methods=["POST"]),
        Route("/v2/templates/{id}", change, methods=["PATCH"]),
        Route("/templates", listing, methods=["GET"]),
        Route("/templates/tags", assign_tags, methods=["POST"]),
        Route("/templates/tags", remove_tags, methods=["DELETE"]),
        Route("/templates/aliases/{alias}", alias, methods=["GET"]),
        Route("/templates/files/{project}/{hash}", take_file, methods=["PUT"]),
        Route("/templates/{id}", detail, methods=["GET"]),
        Route("/templates/{id}", change, methods=["PATCH"]),
        Route("/templates/{id}", remove, methods=["DELETE"]),
        Route("/templates/{id}/tags", list_tags, methods=["GET"]),
        Route("/templates/{id}/files/{hash}", file_link, methods=["GET"]),
        Route("/templates/{id}/builds/{build}/status", build_status, methods=["GET"]),
        Route("/templates/{id}/builds/{build}/logs", build_logs, methods=["GET"]),
    ]
