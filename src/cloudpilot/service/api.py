"""Our own API, under `/v1`: everything that the foreign ones cannot say. One table makes its routes and its description."""

from __future__ import annotations

import asyncio
import functools
import json
import re
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import BaseRoute, Route

from cloudpilot import __version__
from cloudpilot.hosting.access import Caller
from cloudpilot.hosting.builds import Build, Builds, Step
from cloudpilot.hosting.failures import Failure, Kind
from cloudpilot.hosting.limits import LARGEST_UPLOAD
from cloudpilot.hosting.processes import End, Output
from cloudpilot.hosting.sandboxes import Sandbox, Sandboxes
from cloudpilot.hosting.tasks import Progress, Task, Tasks
from cloudpilot.hosting.templates import BASE, Template
from cloudpilot.images import debian
from cloudpilot.images.image import Image
from cloudpilot.service import api_models as models
from cloudpilot.service.docs_page import PAGE
from cloudpilot.service.http import Stream, body, caller_of, parse, parse_query, reply
from cloudpilot.service.metrics import Metrics
from cloudpilot.service.openapi import describe
from cloudpilot.service.settings import LARGEST_BODY

MOST_OUTPUT = 1 << 20
"""Bytes of each of a command's outputs that are answered."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request as its handler sees it."""

    request: Request
    caller: Caller
    body: Any
    query: Any

    @property
    def sandboxes(self) -> Sandboxes:
        """All sandboxes."""
        sandboxes: Sandboxes = self.request.app.state.sandboxes
        return sandboxes

    @property
    def state(self) -> Any:
        """What the application holds."""
        return self.request.app.state

    def name(self, name: str) -> str:
        """A part of the path."""
        value: str = self.request.path_params[name]
        return value

    def sandbox(self) -> Sandbox:
        """The sandbox that the path names."""
        return self.sandboxes.get(self.name("id"), self.caller.project)


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing that the API does.

    Attributes:
        method: HTTP's word for it.
        path: Where.
        summary: What it does, in a line.
        role: Who may do it.
        handler: Does it.
        answer: What it gives; none is nothing, and bytes are raw.
        body: What it takes.
        query: What the query string holds.
        status: HTTP's status of success.
        raw: Whether it takes raw bytes.
        most: Bytes that its body may have.
        media_type: What raw bytes that it gives are.
    """

    method: str
    path: str
    summary: str
    role: str
    handler: Callable[[Call], Awaitable[Any]]
    answer: type[BaseModel | bytes] | None
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    status: int = 200
    raw: bool = False
    most: int = LARGEST_BODY
    media_type: str = "application/octet-stream"


def error_reply(failure: Failure) -> Response:
    """A failure as our own API has it."""
    error = {"code": failure.kind.code, "message": failure.message, "field": failure.field, "remedy": failure.remedy}
    return reply({"error": error}, failure.kind.status)


async def _service(call: Call) -> Any:
    return {"version": __version__, "sandboxes": call.sandboxes.count(), "role": call.caller.role, "project": call.caller.project}


def _shown(sandbox: Sandbox) -> dict[str, Any]:
    value = sandbox.as_value()
    del value["envs"]
    return {"id": sandbox.id, **value}


async def _create_sandbox(call: Call) -> Any:
    given: models.SandboxCreate = call.body
    template = call.state.templates.get(given.template, project=call.caller.project)
    sandbox = await call.sandboxes.create(call.caller, template, timeout=given.timeout, metadata=given.metadata, envs=given.env)
    return _shown(sandbox)


async def _list_sandboxes(call: Call) -> Any:
    found = call.sandboxes.of(call.caller.project)
    names = [each.id for each in found]
    if call.query.after is not None:
        if call.query.after not in names:
            raise Failure(Kind.INVALID, "No sandbox of this id runs", field="after", remedy="begin anew without it")
        found = found[names.index(call.query.after) + 1 :]
    page = found[: call.query.limit]
    return {"sandboxes": [_shown(each) for each in page], "next": page[-1].id if len(found) > len(page) else None}


async def _get_sandbox(call: Call) -> Any:
    return _shown(call.sandbox())


async def _change_sandbox(call: Call) -> Any:
    sandbox = call.sandbox()
    call.sandboxes.set_timeout(call.caller, sandbox, call.body.timeout)
    return _shown(sandbox)


async def _kill_sandbox(call: Call) -> Any:
    await call.sandboxes.kill_and_wait(call.caller, call.sandbox())


async def _run_command(call: Call) -> Any:
    given: models.CommandRun = call.body
    agent = call.sandbox().inside
    process = await agent.start(given.args, envs=given.env, user=given.user, cwd=given.cwd, stdin=given.stdin.encode())
    kept: dict[str, bytearray] = {"stdout": bytearray(), "stderr": bytearray()}
    truncated = False
    end: End | None = None
    try:
        async with asyncio.timeout(given.timeout):
            async for item in process.output():
                if isinstance(item, Output):
                    room = MOST_OUTPUT - len(kept[item.kind])
                    truncated |= room < len(item.data)
                    kept[item.kind] += item.data[:room]
                else:
                    end = item
    except TimeoutError:
        message = f"The command took longer than {given.timeout:g} s and was killed"
        raise Failure(Kind.TIMEOUT, message, field="timeout", remedy="give a longer one") from None
    finally:
        if end is None and process.end is None:
            agent.kill_soon(process.pid)
    assert end is not None
    texts = {name: data.decode(errors="replace") for name, data in kept.items()}
    return {"exit_code": end.code, **texts, "truncated": truncated}


async def _read_file(call: Call) -> Any:
    agent = call.sandbox().inside
    path, who = await agent.place(call.query.path, call.query.user)
    chunks = agent.read_file(path, who)
    first = await anext(chunks, b"")

    async def contents() -> Any:
        try:
            yield first
            async for chunk in chunks:
                yield chunk
        finally:
            await chunks.aclose()  # type: ignore[attr-defined]

    return Stream(contents(), media_type="application/octet-stream")


async def _write_file(call: Call) -> Any:
    agent = call.sandbox().inside
    path, who = await agent.place(call.query.path, call.query.user)
    with tempfile.TemporaryFile() as file:
        size = 0
        async for chunk in call.request.stream():
            size += len(chunk)
            if size > LARGEST_UPLOAD:
                raise Failure(Kind.TOO_LARGE, f"A file has at most {LARGEST_UPLOAD >> 30} GiB", remedy="write it in parts")
            file.write(chunk)
        file.flush()
        await agent.write_file(path, who, file.fileno())
    return {"path": path, "size": size}


async def _stats(call: Call) -> Any:
    sample = await call.sandboxes.sample(call.sandbox())
    return {name: value for name, value in sample.items() if name != "spent"}


async def _log(call: Call) -> Any:
    return {"lines": call.sandboxes.log_of(call.name("id"), call.caller.project)}


def _template_shown(template: Template) -> dict[str, Any]:
    note = None
    if template.name == BASE and template.image is None and template.root is None:
        note = "It shows the host's programs: `pilot image build base` makes a Debian root for it"
    return {**template.kept(), "note": note}


async def _list_templates(call: Call) -> Any:
    return {"templates": [_template_shown(each) for each in call.state.templates.all(call.caller.project)]}


async def _put_template(call: Call) -> Any:
    template = call.state.templates.put(Template(**call.body.model_dump()))
    call.state.sandboxes.prepare()
    call.state.access.note(call.caller, "template.put", template.name)
    return _template_shown(template)


async def _remove_template(call: Call) -> Any:
    call.state.templates.remove(call.name("name"))
    call.state.sandboxes.prepare()
    call.state.access.note(call.caller, "template.remove", call.name("name"))


async def _build_template(call: Call) -> Any:
    given: models.BuildCreate = call.body
    project = call.caller.project
    call.state.templates.check_owner(given.name, project, admin=call.caller.role == "admin")
    template = Template(
        given.name, start_command=given.start_command, ready_command=given.ready_command, memory_mb=given.memory_mb, cpus=given.cpus,
        network=call.state.templates.get(BASE).network, project=project,
    )  # fmt: skip
    steps = [Step(each.kind, each.args) for each in given.steps]
    build = Build(template, [], given.from_image, given.from_template, steps, given.again)
    builds: Builds = call.state.builds
    builds.base_of(build, project)
    task = call.state.tasks.start(project, "template.build", given.name, lambda progress: builds.run(build, project, progress))
    call.state.access.note(call.caller, "template.build", given.name, build=task.id)
    return _task_shown(task)


async def _list_images(call: Call) -> Any:
    found = await run_in_threadpool(call.state.templates.images.all)
    return {"images": [_image_shown(each) for each in found]}


def _image_shown(image: Image) -> dict[str, Any]:
    shown = {"name": image.name, "digest": image.digest, "size": image.size, "created": image.created}
    return {**shown, "config": image.config.shown()}


async def _add_image(call: Call) -> Any:
    given: models.ImageCreate = call.body
    images = call.state.templates.images
    loop = asyncio.get_running_loop()

    async def work(progress: Progress) -> dict[str, Any]:
        def say(text: str) -> None:
            loop.call_soon_threadsafe(progress.note, text)

        if given.kind == "layout":
            image = await run_in_threadpool(images.import_layout, given.path, given.tag, given.name, say)
        elif given.kind == "root":
            image = await run_in_threadpool(images.import_root, given.path, given.name or "", None, say)
        else:
            build = functools.partial(debian.build, images, mirror=given.path or debian.MIRROR, progress=say)
            image = await run_in_threadpool(build)
        return {"image": image.name, "digest": image.digest}

    task = call.state.tasks.start(call.caller.project, "image.add", given.name or given.path, work)
    call.state.access.note(call.caller, "image.add", given.name or given.path, task=task.id)
    return _task_shown(task)


async def _remove_image(call: Call) -> Any:
    await run_in_threadpool(call.state.templates.images.remove, call.query.name)
    call.state.access.note(call.caller, "image.remove", call.query.name)


def _task_shown(task: Task) -> dict[str, Any]:
    return {"id": task.id, **task.as_value()}


async def _list_tasks(call: Call) -> Any:
    found = call.state.tasks.of(call.caller.project)
    names = [task.id for task in found]
    if call.query.after is not None:
        if call.query.after not in names:
            raise Failure(Kind.INVALID, "There is no such task", field="after", remedy="take it from `next`")
        found = found[names.index(call.query.after) + 1 :]
    page = found[: call.query.limit]
    return {"tasks": [_task_shown(task) for task in page], "next": page[-1].id if len(found) > len(page) else None}


async def _get_task(call: Call) -> Any:
    return _task_shown(call.state.tasks.get(call.name("id"), call.caller.project))


async def _cancel_task(call: Call) -> Any:
    task = call.state.tasks.get(call.name("id"), call.caller.project)
    await call.state.tasks.cancel(task)
    call.state.access.note(call.caller, "task.cancel", task.id)


async def _follow_task(call: Call) -> Any:
    tasks: Tasks = call.state.tasks
    task = tasks.get(call.name("id"), call.caller.project)
    last = call.request.headers.get("last-event-id", "")
    after = int(last) if last.isascii() and last.isdigit() else call.query.after

    async def contents() -> AsyncIterator[bytes]:
        async for event in tasks.follow(task, after):
            yield f"id: {event['id']}\nevent: log\ndata: {json.dumps(event)}\n\n".encode()
        yield f"event: end\ndata: {json.dumps(_task_shown(task))}\n\n".encode()

    return Stream(contents(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})


async def _list_keys(call: Call) -> Any:
    return {"keys": call.state.access.keys()}


async def _make_key(call: Call) -> Any:
    key, value = call.state.access.make_key(call.body.project, call.body.role, call.body.name)
    call.state.access.note(call.caller, "key.create", value["id"], role=call.body.role)
    return {"key": key, **value}


async def _credentials(call: Call) -> Any:
    key_id, secret = call.state.access.aws_pair(call.caller.key_id)
    return {"access_key_id": key_id, "secret_access_key": secret}


async def _remove_key(call: Call) -> Any:
    call.state.access.remove_key(call.name("id"))
    call.state.access.note(call.caller, "key.remove", call.name("id"))


async def _list_projects(call: Call) -> Any:
    return {"projects": call.state.access.projects()}


async def _make_project(call: Call) -> Any:
    value = call.state.access.make_project(call.body.name, call.body.model_dump(exclude={"name"}))
    call.state.access.note(call.caller, "project.create", call.body.name)
    return value


async def _change_project(call: Call) -> Any:
    quota = call.body.model_dump(exclude_unset=True)
    value = call.state.access.change_project(call.name("name"), quota)
    call.state.access.note(call.caller, "project.change", call.name("name"), **quota)
    return value


async def _audit(call: Call) -> Any:
    found = call.state.access.audit(call.query.before, call.query.limit)
    entries = [{"id": entry.key.removeprefix("audit/"), **entry.value} for entry in found]
    return {"entries": entries, "next": entries[-1]["id"] if len(entries) == call.query.limit else None}


OPERATIONS = [
    Operation("GET", "/v1/service", "What the service is, and who you are", "read-only", _service, models.Service),
    Operation("POST", "/v1/sandboxes", "Start a sandbox", "user", _create_sandbox, models.Sandbox, models.SandboxCreate, status=201),
    Operation(
        "GET", "/v1/sandboxes", "List sandboxes, the oldest first", "read-only", _list_sandboxes, models.SandboxPage, query=models.PageQuery
    ),
    Operation("GET", "/v1/sandboxes/{id}", "Look at a sandbox", "read-only", _get_sandbox, models.Sandbox),
    Operation(
        "PATCH", "/v1/sandboxes/{id}", "Change when a sandbox is ended", "user", _change_sandbox, models.Sandbox, models.SandboxChange
    ),
    Operation("DELETE", "/v1/sandboxes/{id}", "End a sandbox", "user", _kill_sandbox, None, status=204),
    Operation(
        "POST", "/v1/sandboxes/{id}/commands", "Run a command to its end", "user", _run_command, models.CommandResult, models.CommandRun
    ),
    Operation("GET", "/v1/sandboxes/{id}/files", "Read a file", "user", _read_file, bytes, query=models.FileQuery),
    Operation("PUT", "/v1/sandboxes/{id}/files", "Write a file", "user", _write_file, models.Written, query=models.FileQuery, raw=True),
    Operation("GET", "/v1/sandboxes/{id}/stats", "What a sandbox uses", "read-only", _stats, models.Stats),
    Operation(
        "GET", "/v1/sandboxes/{id}/log", "What happened in a sandbox, also for some time after its end", "read-only", _log, models.Log
    ),
    Operation("GET", "/v1/templates", "List templates", "read-only", _list_templates, models.Templates),
    Operation(
        "POST", "/v1/templates", "Add or replace a template", "admin", _put_template, models.Template, models.TemplateCreate, status=201
    ),
    Operation("DELETE", "/v1/templates/{name}", "Remove a template", "admin", _remove_template, None, status=204),
    Operation("POST", "/v1/builds", "Build a template from steps", "user", _build_template, models.Task, models.BuildCreate, status=202),
    Operation("GET", "/v1/images", "List images", "read-only", _list_images, models.Images),
    Operation("POST", "/v1/images", "Add an image that lies on the host", "admin", _add_image, models.Task, models.ImageCreate, status=202),
    Operation("DELETE", "/v1/images", "Remove an image", "admin", _remove_image, None, query=models.ImageQuery, status=204),
    Operation(
        "GET", "/v1/tasks", "List long operations, the newest first", "read-only", _list_tasks, models.TaskPage, query=models.PageQuery
    ),
    Operation("GET", "/v1/tasks/{id}", "Look at a long operation", "read-only", _get_task, models.Task),
    Operation("DELETE", "/v1/tasks/{id}", "Stop a long operation", "user", _cancel_task, None, status=204),
    Operation(
        "GET",
        "/v1/tasks/{id}/events",
        "Follow a long operation: server-sent events, with `Last-Event-ID`",
        "read-only",
        _follow_task,
        bytes,
        query=models.EventsQuery,
        media_type="text/event-stream",
    ),
    Operation("GET", "/v1/keys", "List API keys", "admin", _list_keys, models.Keys),
    Operation("POST", "/v1/keys", "Make an API key", "admin", _make_key, models.NewKey, models.KeyCreate, status=201),
    Operation("GET", "/v1/credentials", "This key in the form that AWS's clients take", "read-only", _credentials, models.Credentials),
    Operation("DELETE", "/v1/keys/{id}", "Make an API key worthless", "admin", _remove_key, None, status=204),
    Operation("GET", "/v1/projects", "List projects", "admin", _list_projects, models.Projects),
    Operation("POST", "/v1/projects", "Make a project", "admin", _make_project, models.Project, models.ProjectCreate, status=201),
    Operation("PATCH", "/v1/projects/{name}", "Change a project's quota", "admin", _change_project, models.Project, models.ProjectChange),
    Operation("GET", "/v1/audit", "Who changed what, the newest first", "admin", _audit, models.Audit, query=models.AuditQuery),
]


def _endpoint(operation: Operation) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        caller = caller_of(request, operation.role)
        query = None if operation.query is None else parse_query(operation.query, request.query_params)
        given = None if operation.body is None else parse(operation.body, await body(request, operation.most))
        for name, value in request.path_params.items():
            if not re.fullmatch(models.FUNCTION_NAME if name == "function" else models.NAME, value):
                raise Failure(Kind.NOT_FOUND, f"There is no `{value}`", field=name, remedy="names have small letters, digits and `-._`")
        result = await operation.handler(Call(request, caller, given, query))
        if isinstance(result, Response):
            return result
        return Response(status_code=operation.status) if result is None else reply(result, operation.status)

    return serve


def routes(metrics: Metrics, more: Sequence[Operation] = ()) -> list[BaseRoute]:
    """The API's routes, its description, and figures for Prometheus."""
    operations = [*OPERATIONS, *more]
    document = describe(operations)

    async def openapi(request: Request) -> Response:
        return reply(document)

    async def docs(request: Request) -> Response:
        return HTMLResponse(PAGE, headers={"Content-Security-Policy": "default-src 'self' 'unsafe-inline'"})

    async def figures(request: Request) -> Response:
        # As Prometheus and its friends expect it: numbers only, nothing of what is in a sandbox.
        return Response(metrics.text(), media_type="text/plain; version=0.0.4")

    return [
        *(Route(each.path, _endpoint(each), methods=[each.method], name=each.summary) for each in operations),
        Route("/openapi.json", openapi, methods=["GET"]),
        Route("/docs", docs, methods=["GET"]),
        Route("/metrics", figures, methods=["GET"]),
    ]
