"""Functions in our own API: for `pilot function`, `cloudpilot.App`, and functions that serve HTTP, which Lambda's API cannot say."""

from __future__ import annotations

import base64
import binascii
import functools
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from cloudpilot.functions.code import LARGEST_ZIP
from cloudpilot.functions.errors import FunctionError
from cloudpilot.functions.launch import image_name
from cloudpilot.functions.records import LATEST, Function, UrlConfig
from cloudpilot.hosting.failures import Failure, Kind
from cloudpilot.service import function_models as models
from cloudpilot.service.api import Call, Operation
from cloudpilot.service.function_urls import address, new_id, path_of
from cloudpilot.service.http import body

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cloudpilot.functions.registry import Registry

LARGEST_EVENT = 6 << 20
"""Bytes that a function is called with, as with Lambda."""
_KINDS = {
    "ResourceNotFoundException": Kind.NOT_FOUND,
    "ResourceConflictException": Kind.EXISTS,
    "RequestTooLargeException": Kind.TOO_LARGE,
    "TooManyRequestsException": Kind.LIMIT,
}


def _translated(handler: Callable[[Call], Awaitable[Any]]) -> Callable[[Call], Awaitable[Any]]:
    """A handler whose refusals are ours rather than Lambda's."""

    @functools.wraps(handler)
    async def serve(call: Call) -> Any:
        try:
            return await handler(call)
        except FunctionError as error:
            kind = _KINDS.get(error.kind, Kind.INVALID)
            remedies = {Kind.NOT_FOUND: "GET /v1/functions lists them", Kind.LIMIT: "try again later"}
            raise Failure(kind, error.message, remedy=remedies.get(kind, "see /openapi.json for what it takes")) from None

    return serve


def _registry(call: Call) -> Registry:
    registry: Registry = call.state.registry
    return registry


def _url_key(function: Function) -> str:
    return f"function-urls/{function.project}/{function.name}/{LATEST}"


def _shown(call: Call, function: Function) -> dict[str, Any]:
    entry = _registry(call).store.get(_url_key(function))
    url = None if entry is None else UrlConfig.from_value(entry.value)
    return {
        "name": function.name,
        "contract": function.contract,
        "version": function.version,
        "runtime": function.runtime,
        "handler": function.handler,
        "image": function.image,
        "code_sha256": function.digest,
        "code_size": function.code_size,
        "memory_mb": function.memory_mb,
        "timeout": function.timeout,
        "concurrency": function.calls_per_instance,
        "modified": function.modified,
        "url": None if url is None else address(call.request, url),
        "path": None if url is None else path_of(url),
    }


async def _code(call: Call, given: models.FunctionDeploy, before: Function | None) -> dict[str, Any]:
    registry = _registry(call)
    if given.image is not None:
        if given.code is not None:
            raise Failure(Kind.INVALID, "A function has code or an image", field="image", remedy="leave one out")
        image = await anyio.to_thread.run_sync(registry.images.get, given.image)
        digest = image.digest.removeprefix("sha256:")
        await anyio.to_thread.run_sync(registry.images.tag, image, image_name(digest))
        return {"package": "Image", "image": given.image, "digest": digest, "code_size": image.size}
    if given.code is None:
        if before is None:
            raise Failure(Kind.INVALID, "A new function needs code", field="code", remedy="give a zip archive in base64, or an image")
        return {}
    try:
        archive = base64.b64decode(given.code, validate=True)
    except (ValueError, binascii.Error):
        raise Failure(Kind.INVALID, "The code is not base64", field="code", remedy="give a zip archive in base64") from None
    digest = await anyio.to_thread.run_sync(registry.codes.put, archive)
    return {"package": "Zip", "image": None, "digest": digest, "code_size": len(archive)}


@_translated
async def _deploy_function(call: Call) -> Any:
    given: models.FunctionDeploy = call.body
    registry, project = _registry(call), call.caller.project
    if given.contract == "events" and (given.command or given.target or given.signature or given.concurrency != 1):
        message = "A command, a target, a signature and concurrency are for functions that serve HTTP"
        raise Failure(Kind.INVALID, message, field="contract", remedy="say `http`, or leave them out")
    if given.contract == "events" and given.image is None and not given.handler and not given.runtime.startswith("provided"):
        raise Failure(Kind.INVALID, "It has no handler", field="handler", remedy="name it as `MODULE.NAME`")
    code = await _code(call, given, registry.find(project, given.name))
    http = {"command": given.command, "target": given.target, "signature": given.signature}
    changes: dict[str, Any] = {
        **code,
        "contract": given.contract,
        "runtime": given.runtime,
        "handler": given.handler,
        "env": given.env,
        "memory_mb": given.memory_mb,
        "timeout": given.timeout,
        "calls_per_instance": given.concurrency,
        "options": {"http": {name: each for name, each in http.items() if each is not None}},
    }
    before = registry.find(project, given.name)
    if before is None:
        call.state.access.admit(project, {"most_functions": registry.count(project) + 1})
        function = registry.create(Function(name=given.name, project=project, role="", **changes))
    else:
        function = registry.update(before, None, **changes)
    if given.contract == "http":
        _set_url(registry, function, public=given.public)
    call.state.access.note(call.caller, "function.deploy", given.name)
    return _shown(call, function)


def _set_url(registry: Registry, function: Function, *, public: bool) -> None:
    key, auth = _url_key(function), "NONE" if public else "AWS_IAM"
    entry = registry.store.get(key)
    if entry is None:
        url = UrlConfig(new_id(), function.project, function.name, None, auth, stream=True)
    else:
        url = replace(UrlConfig.from_value(entry.value), auth=auth)
    registry.store.transact({key: url.as_value(), f"function-url-ids/{url.id}": {"key": key}})


@_translated
async def _list_functions(call: Call) -> Any:
    return {"functions": [_shown(call, each) for each in _registry(call).all(call.caller.project)]}


@_translated
async def _get_function(call: Call) -> Any:
    return _shown(call, _registry(call).get(call.caller.project, call.name("function")))


@_translated
async def _delete_function(call: Call) -> Any:
    name = call.name("function")
    _registry(call).remove(call.caller.project, name)
    call.state.logs.remove(call.caller.project, name)
    call.state.access.note(call.caller, "function.delete", name)


@_translated
async def _invoke_function(call: Call) -> Any:
    text = await body(call.request, LARGEST_EVENT) or b"null"
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        raise Failure(Kind.INVALID, "The event is not JSON", remedy="send JSON, or nothing") from None
    function = _registry(call).pick(call.caller.project, call.name("function"), call.query.version)
    outcome = await call.state.pools.invoke(function, text)
    try:
        result = json.loads(outcome.answer) if outcome.answer else None
    except (ValueError, RecursionError):
        result = outcome.answer.decode(errors="replace")
    tail = base64.b64decode(outcome.log_tail).decode(errors="replace")
    return {"error": outcome.error, "result": result, "version": function.version, "log": tail}


@_translated
async def _function_log(call: Call) -> Any:
    project, name, query = call.caller.project, call.name("function"), call.query
    _registry(call).get(project, name)
    entries, position = call.state.logs.read(project, name, query.after, query.limit)
    if not entries and query.wait:
        await call.state.logs.wait(project, name, query.wait)
        entries, position = call.state.logs.read(project, name, query.after, query.limit)
    return {"entries": entries, "next": position}


OPERATIONS = [
    Operation(
        "POST", "/v1/functions", "Make a function, or change it", "user", _deploy_function, models.Function, models.FunctionDeploy,
        most=LARGEST_ZIP * 4 // 3 + (1 << 20),
    ),
    Operation("GET", "/v1/functions", "List functions", "read-only", _list_functions, models.Functions),
    Operation("GET", "/v1/functions/{function}", "Look at a function", "read-only", _get_function, models.Function),
    Operation("DELETE", "/v1/functions/{function}", "Remove a function with all its versions", "user", _delete_function, None, status=204),
    Operation(
        "POST", "/v1/functions/{function}/invoke", "Call a function with an event in JSON", "user", _invoke_function, models.Invocation,
        query=models.InvokeQuery, raw=True,
    ),
    Operation(
        "GET", "/v1/functions/{function}/log", "What it wrote", "read-only", _function_log, models.FunctionLog, query=models.LogQuery
    ),
]  # fmt: skip
