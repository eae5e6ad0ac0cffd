"""E2B's control API: sandboxes are created, listed, prolonged and ended here."""

from __future__ import annotations

import base64
import binascii
import urllib.parse
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloudpilot.hosting.failures import Failure, Kind
from cloudpilot.hosting.limits import DEFAULT_TIMEOUT
from cloudpilot.hosting.sandbox_log import LEVELS
from cloudpilot.hosting.sandboxes import Sandbox, Sandboxes
from cloudpilot.service.e2b import ENVD_VERSION
from cloudpilot.service.http import body, caller_of, parse, parse_query, reply

LARGEST_PAGE = 100
LARGEST_LOG_PAGE = 1000
_REMEMBERED_KEYS = 1000
_SNAPSHOTS = "This needs snapshots of the sandbox wall, which do not exist yet"
_DISK_MB = 0
"""Files of a sandbox lie in its memory."""


class Model(BaseModel):
    """A body. Later clients say more than we know; E2B's own API takes that as well."""

    model_config = ConfigDict(extra="ignore", strict=True)


class NewSandbox(Model):
    """The body of a creation."""

    template: Annotated[str, Field(alias="templateID", min_length=1, max_length=128)]
    timeout: int = DEFAULT_TIMEOUT
    metadata: dict[str, str] = {}
    envs: Annotated[dict[str, str], Field(alias="envVars")] = {}
    auto_pause: Annotated[bool, Field(alias="autoPause")] = False
    volume_mounts: Annotated[list[Any], Field(alias="volumeMounts")] = []
    mcp: Any = None
    iam: Any = None
    network: Any = None


class Timeout(Model):
    """A body that gives a time to live."""

    timeout: int = DEFAULT_TIMEOUT


class Refresh(Model):
    """A body that asks for more time."""

    duration: int = 60


class Query(BaseModel):
    """What a listing asks for."""

    model_config = ConfigDict(extra="ignore")

    metadata: str | None = None
    state: str | None = None
    order: Annotated[str, Field(pattern="^(asc|desc)$")] = "desc"
    started_after: Annotated[datetime | None, Field(alias="startedAfter")] = None
    template: str | None = None
    next_token: Annotated[str | None, Field(alias="nextToken")] = None
    limit: Annotated[int, Field(ge=1, le=LARGEST_PAGE)] = LARGEST_PAGE


def error_reply(failure: Failure) -> Response:
    """A failure as E2B's API has it."""
    # The client would wait and ask again; what is full will be so then as well.
    headers = {"Should-Retry": "false"} if failure.kind in (Kind.LIMIT, Kind.TIMEOUT) else None
    value = {"code": failure.kind.status, "message": failure.sentence(), "error_code": failure.kind.code}
    return reply(value, failure.kind.status, headers)


def time_text(seconds: float) -> str:
    """A time as E2B writes it."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _all(request: Request) -> Sandboxes:
    sandboxes: Sandboxes = request.app.state.sandboxes
    return sandboxes


def _one(request: Request, role: str) -> Sandbox:
    caller = caller_of(request, role)
    return _all(request).get(request.path_params["id"], caller.project)


def _opened(request: Request, sandbox: Sandbox) -> dict[str, Any]:
    state = request.app.state
    return {
        "templateID": sandbox.template,
        "alias": sandbox.template,
        "sandboxID": sandbox.id,
        "clientID": "cloudpilot",
        "envdVersion": ENVD_VERSION,
        "envdAccessToken": state.access.sandbox_token(sandbox.id),
        "domain": state.domain,
    }


def _listed(sandbox: Sandbox) -> dict[str, Any]:
    return {
        "templateID": sandbox.template,
        "alias": sandbox.template,
        "sandboxID": sandbox.id,
        "clientID": "cloudpilot",
        "startedAt": time_text(sandbox.created),
        "endAt": time_text(sandbox.end_at),
        "cpuCount": max(1, round(sandbox.cpus)),
        "memoryMB": sandbox.memory_mb,
        "diskSizeMB": _DISK_MB,
        "metadata": sandbox.metadata,
        "state": "running",
        "envdVersion": ENVD_VERSION,
    }


async def create(request: Request) -> Response:
    """`POST /sandboxes`."""
    caller = caller_of(request, "user")
    given = parse(NewSandbox, await body(request))
    state = request.app.state
    for name, value in (("volumeMounts", given.volume_mounts), ("mcp", given.mcp), ("iam", given.iam)):
        if value:
            raise Failure(Kind.NOT_SUPPORTED, "This is not supported", field=name, remedy="leave it out")
    if given.auto_pause:
        raise Failure(Kind.NOT_SUPPORTED, _SNAPSHOTS, field="autoPause", remedy="leave it out: the sandbox is killed when its time is up")
    key = request.headers.get("idempotency-key")
    known: dict[tuple[str, str], str] = state.idempotency
    if key and (caller.project, key) in known:
        # The answer to the first try was lost on its way.
        return reply(_opened(request, _all(request).get(known[caller.project, key], caller.project)), 201)
    template = state.templates.get(given.template, "templateID", caller.project)
    sandbox = await _all(request).create(caller, template, timeout=given.timeout, metadata=given.metadata, envs=given.envs)
    if key:
        known[caller.project, key] = sandbox.id
        while len(known) > _REMEMBERED_KEYS:
            del known[next(iter(known))]
    return reply(_opened(request, sandbox), 201)


def _filtered(request: Request, query: Query, project: str) -> list[Sandbox]:
    found = _all(request).of(project)
    if query.order == "desc":
        found.reverse()
    if query.state is not None and "running" not in query.state.split(","):
        return []
    if query.metadata:
        # The client quotes names and values, and then the whole.
        pairs = urllib.parse.parse_qsl(query.metadata, keep_blank_values=True)
        wanted = {urllib.parse.unquote(name): urllib.parse.unquote(value) for name, value in pairs}
        found = [each for each in found if wanted.items() <= each.metadata.items()]
    if query.template:
        found = [each for each in found if each.template == query.template]
    if query.started_after:
        after = query.started_after.timestamp()
        found = [each for each in found if each.created > after]
    return found


async def listing(request: Request) -> Response:
    """`GET /sandboxes`, and with pages `GET /v2/sandboxes`."""
    caller = caller_of(request)
    query = parse_query(Query, request.query_params)
    found = _filtered(request, query, caller.project)
    if not request.url.path.startswith("/v2/"):
        return reply([_listed(each) for each in found])
    if query.next_token:
        try:
            created, _, last = base64.urlsafe_b64decode(query.next_token).decode().partition(" ")
            mark = float(created), last
        except (ValueError, binascii.Error):
            raise Failure(Kind.INVALID, "This is no token of ours", field="nextToken", remedy="take it from `x-next-token`") from None
        ascending = query.order == "asc"
        found = [each for each in found if (each.created, each.id) != mark and ((each.created, each.id) > mark) == ascending]
    page = found[: query.limit]
    headers = {"X-Total-Running": str(len(found))}
    if len(found) > len(page):
        headers["X-Next-Token"] = base64.urlsafe_b64encode(f"{page[-1].created!r} {page[-1].id}".encode()).decode()
    return reply([_listed(each) for each in page], headers=headers)


async def detail(request: Request) -> Response:
    """`GET /sandboxes/{id}`."""
    sandbox = _one(request, "read-only")
    opened = _opened(request, sandbox)
    if request.state.caller.role == "read-only":
        del opened["envdAccessToken"]
    return reply({**_listed(sandbox), **opened, "allowInternetAccess": sandbox.network == "host"})


async def kill(request: Request) -> Response:
    """`DELETE /sandboxes/{id}`."""
    sandbox = _one(request, "user")
    await _all(request).kill_and_wait(request.state.caller, sandbox)
    return Response(status_code=204)


async def set_timeout(request: Request) -> Response:
    """`POST /sandboxes/{id}/timeout`."""
    sandbox = _one(request, "user")
    given = parse(Timeout, await body(request))
    _all(request).set_timeout(request.state.caller, sandbox, given.timeout)
    return Response(status_code=204)


async def refresh(request: Request) -> Response:
    """`POST /sandboxes/{id}/refreshes`."""
    sandbox = _one(request, "user")
    given = parse(Refresh, await body(request))
    _all(request).set_timeout(request.state.caller, sandbox, given.duration, only_longer=True)
    return Response(status_code=204)


async def connect(request: Request) -> Response:
    """`POST /sandboxes/{id}/connect` and `/resume`: to one that runs, since none is ever paused."""
    sandbox = _one(request, "user")
    text = await body(request)
    given = parse(Timeout, text)
    _all(request).set_timeout(request.state.caller, sandbox, given.timeout, only_longer=True)
    return reply(_opened(request, sandbox))


async def unsupported(request: Request) -> Response:
    """What waits for snapshots."""
    if "id" in request.path_params:
        _one(request, "user")
    else:
        caller_of(request, "user")
    raise Failure(Kind.NOT_SUPPORTED, _SNAPSHOTS, remedy="keep the sandbox running with `set_timeout`, or create another")


async def set_network(request: Request) -> Response:
    """`PUT /sandboxes/{id}/network`."""
    _one(request, "user")
    raise Failure(Kind.NOT_SUPPORTED, "The network of a sandbox is its template's", remedy="create one from another template")


def _metric(sandbox: Sandbox, sample: dict[str, Any]) -> dict[str, Any]:
    return {
        "timestamp": time_text(sample["time"]),
        "timestampUnix": int(sample["time"]),
        "cpuCount": max(1, round(sandbox.cpus)),
        "cpuUsedPct": sample["cpu_percent"],
        "memUsed": sample["memory_bytes"],
        "memTotal": sample["memory_limit_bytes"],
        "memCache": 0,
        "diskUsed": 0,
        "diskTotal": _DISK_MB,
    }


async def metrics(request: Request) -> Response:
    """`GET /sandboxes/{id}/metrics`: figures of now, and of the times when somebody asked before."""
    sandbox = _one(request, "read-only")
    await _all(request).sample(sandbox)
    start, end = (request.query_params.get(name, "") for name in ("start", "end"))
    first = int(start) if start.isascii() and start.isdigit() else 0
    last = int(end) + 1 if end.isascii() and end.isdigit() else float("inf")
    return reply([_metric(sandbox, each) for each in sandbox.samples if first <= each["time"] <= last])


async def all_metrics(request: Request) -> Response:
    """`GET /sandboxes/metrics`."""
    caller = caller_of(request)
    wanted = [each for each in request.query_params.get("sandbox_ids", "").split(",") if each]
    found = [_all(request).get(each, caller.project) for each in wanted]
    return reply({"sandboxes": {each.id: _metric(each, await _all(request).sample(each)) for each in found}})


class LogQuery(BaseModel):
    """Which part of a log. Times are milliseconds since 1970."""

    model_config = ConfigDict(extra="ignore")

    start: Annotated[int, Field(ge=0)] = 0
    cursor: Annotated[int | None, Field(ge=0)] = None
    limit: Annotated[int, Field(ge=0, le=LARGEST_LOG_PAGE)] = LARGEST_LOG_PAGE
    direction: Annotated[str, Field(pattern="^(forward|backward)$")] = "forward"
    level: Annotated[str, Field(pattern="^(debug|info|warn|error)$")] = "debug"
    search: str = ""


async def logs(request: Request) -> Response:
    """`GET /sandboxes/{id}/logs`: what happened in it, also for some time after its end."""
    caller = caller_of(request)
    query = parse_query(LogQuery, request.query_params)
    found = _all(request).log_of(request.path_params["id"], caller.project)
    least = LEVELS.index(query.level)
    found = [each for each in found if each["level"] not in LEVELS or LEVELS.index(each["level"]) >= least]
    found = [each for each in found if query.search in each["message"]]
    if query.direction == "backward":
        last = float("inf") if query.cursor is None else query.cursor
        page = [each for each in reversed(found) if each["time"] * 1000 <= last][: query.limit]
    else:
        first = query.start if query.cursor is None else query.cursor
        page = [each for each in found if each["time"] * 1000 >= first][: query.limit]
    entries = [
        {
            "timestamp": time_text(each["time"]),
            "message": each["message"],
            "level": each["level"],
            "fields": {name: str(value) for name, value in each["fields"].items()},
        }
        for each in page
    ]
    if request.url.path.startswith("/v2/"):
        return reply({"logs": entries})
    return reply({"logs": [{"timestamp": each["timestamp"], "line": each["message"]} for each in entries], "logEntries": entries})


def routes() -> list[Route]:
    """The API's routes."""
    result = []
    for version in ("", "/v2"):
        result += [
            Route(f"{version}/sandboxes", create, methods=["POST"]),
            Route(f"{version}/sandboxes", listing, methods=["GET"]),
            Route(f"{version}/sandboxes/metrics", all_metrics, methods=["GET"]),
            Route(f"{version}/sandboxes/{{id}}", detail, methods=["GET"]),
            Route(f"{version}/sandboxes/{{id}}", kill, methods=["DELETE"]),
            Route(f"{version}/sandboxes/{{id}}/timeout", set_timeout, methods=["POST"]),
            Route(f"{version}/sandboxes/{{id}}/refreshes", refresh, methods=["POST"]),
            Route(f"{version}/sandboxes/{{id}}/connect", connect, methods=["POST"]),
            Route(f"{version}/sandboxes/{{id}}/resume", connect, methods=["POST"]),
            Route(f"{version}/sandboxes/{{id}}/pause", unsupported, methods=["POST"]),
            Route(f"{version}/sandboxes/{{id}}/fork", unsupported, methods=["POST"]),
            Route(f"{version}/sandboxes/{{id}}/snapshots", unsupported, methods=["POST"]),
            Route(f"{version}/sandboxes/{{id}}/network", set_network, methods=["PUT"]),
            Route(f"{version}/sandboxes/{{id}}/metrics", metrics, methods=["GET"]),
            Route(f"{version}/sandboxes/{{id}}/logs", logs, methods=["GET"]),
        ]
    return [*result, Route("/snapshots", unsupported, methods=["GET"])]
