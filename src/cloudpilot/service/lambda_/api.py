"""Lambda's API: functions are created, changed, listed, removed and called."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import anyio.to_thread
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cloudpilot.functions.code import LARGEST_ZIP
from cloudpilot.functions.errors import FunctionError, invalid
from cloudpilot.functions.records import Function
from cloudpilot.service.failures import Failure
from cloudpilot.service.http import body, reply
from cloudpilot.service.lambda_ import sigv4
from cloudpilot.service.lambda_.errors import error_reply
from cloudpilot.service.lambda_.shapes import described

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from cloudpilot.functions.registry import Registry
    from cloudpilot.service.access import Caller

LARGEST_PAYLOAD = 6 << 20
"""Bytes that a function is called with, as with Lambda."""
LARGEST_EVENT = 1 << 20
"""Bytes of an asynchronous call, which the store keeps until it is done."""
_RUNTIME = re.compile(r"python3(\.\d+)?|provided(\.al2|\.al2023)?")
_NAME = re.compile(r"(?:(?:arn:aws:lambda:[\w-]*:\d*:)?function:|\d+:)?([\w-]{1,64})(?::(\$LATEST))?")
_PREFIX = "/2015-03-31/functions"


class _Given(BaseModel):
    model_config = ConfigDict(extra="ignore", strict=True, populate_by_name=True)


class _Variables(_Given):
    variables: Annotated[dict[str, str], Field(alias="Variables")] = {}


class _Code(_Given):
    zip_file: Annotated[str | None, Field(alias="ZipFile")] = None


class _Configuration(_Given):
    handler: Annotated[str | None, Field(alias="Handler", max_length=128)] = None
    runtime: Annotated[str | None, Field(alias="Runtime")] = None
    role: Annotated[str | None, Field(alias="Role")] = None
    description: Annotated[str | None, Field(alias="Description", max_length=256)] = None
    timeout: Annotated[int | None, Field(alias="Timeout", ge=1, le=900)] = None
    memory_mb: Annotated[int | None, Field(alias="MemorySize", ge=128, le=10240)] = None
    environment: Annotated[_Variables | None, Field(alias="Environment")] = None


class _Creation(_Configuration):
    name: Annotated[str, Field(alias="FunctionName")]
    code: Annotated[_Code, Field(alias="Code")]
    package: Annotated[str, Field(alias="PackageType")] = "Zip"


def _parse(model: type[Any], text: bytes) -> Any:
    try:
        return model.model_validate_json(text or b"{}")
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        kind = "InvalidRequestContentException" if first["type"] == "json_invalid" else "InvalidParameterValueException"
        raise FunctionError(kind, f"{place}: {first['msg']}" if place else first["msg"]) from None


def _name(text: str) -> str:
    found = _NAME.fullmatch(text)
    if found is None:
        raise FunctionError("ValidationException", f"`{text[:100]}` is not the name of a function")
    return found[1]


def _registry(request: Request) -> Registry:
    registry: Registry = request.app.state.registry
    return registry


def _changes(given: _Configuration) -> dict[str, Any]:
    if given.runtime is not None and not _RUNTIME.fullmatch(given.runtime):
        raise invalid(f"The runtime `{given.runtime}` is not supported; use python3.x or provided")
    names = ("handler", "runtime", "role", "description", "timeout", "memory_mb")
    changes = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    if given.environment is not None:
        changes["env"] = given.environment.variables
    return changes


async def _unpacked(request: Request, zip_file: str | None) -> dict[str, Any]:
    if not zip_file:
        raise invalid("Give the code as `ZipFile`; S3 and images are not supported")
    try:
        archive = base64.b64decode(zip_file, validate=True)
    except (ValueError, binascii.Error):
        raise invalid("`ZipFile` is not base64") from None
    digest = await anyio.to_thread.run_sync(_registry(request).codes.put, archive)
    return {"digest": digest, "code_size": len(archive)}


async def _create(request: Request, caller: Caller, text: bytes) -> Response:
    caller.need("user")
    given: _Creation = _parse(_Creation, text)
    name = _name(given.name)
    if given.package != "Zip":
        raise invalid("Only the package type `Zip` is supported")
    if given.runtime is None or given.handler is None:
        raise invalid("`Runtime` and `Handler` are needed for functions of the package type `Zip`")
    registry = _registry(request)
    if any(each.name == name for each in registry.all(caller.project)):
        raise FunctionError("ResourceConflictException", f"Function already exist: {name}")
    changes = {"role": "", **_changes(given), **await _unpacked(request, given.code.zip_file)}
    function = registry.put(Function(name=name, project=caller.project, **changes))
    request.app.state.access.note(caller, "function.create", name)
    return reply(described(function), 201)


async def _list(request: Request, caller: Caller, text: bytes) -> Response:
    return reply({"Functions": [described(each) for each in _registry(request).all(caller.project)]})


def _one(request: Request, caller: Caller) -> Function:
    return _registry(request).get(caller.project, _name(request.path_params["name"]))


async def _get(request: Request, caller: Caller, text: bytes) -> Response:
    function = _one(request, caller)
    return reply({"Configuration": described(function), "Code": {"RepositoryType": "local"}, "Tags": {}})


async def _configuration(request: Request, caller: Caller, text: bytes) -> Response:
    return reply(described(_one(request, caller)))


async def _delete(request: Request, caller: Caller, text: bytes) -> Response:
    caller.need("user")
    function = _one(request, caller)
    _registry(request).remove(function)
    request.app.state.access.note(caller, "function.delete", function.name)
    return Response(status_code=204)


async def _update_code(request: Request, caller: Caller, text: bytes) -> Response:
    caller.need("user")
    function = _one(request, caller)
    changes = await _unpacked(request, _parse(_Code, text).zip_file)
    request.app.state.access.note(caller, "function.code", function.name)
    return reply(described(_registry(request).put(replace(function, **changes))))


async def _update_configuration(request: Request, caller: Caller, text: bytes) -> Response:
    caller.need("user")
    function = _one(request, caller)
    changed = _registry(request).put(replace(function, **_changes(_parse(_Configuration, text))))
    request.app.state.access.note(caller, "function.configuration", function.name)
    return reply(described(changed))


async def _invoke(request: Request, caller: Caller, text: bytes) -> Response:
    caller.need("user")
    function = _one(request, caller)
    kind = request.headers.get("x-amz-invocation-type", "RequestResponse")
    if kind not in ("RequestResponse", "Event", "DryRun"):
        raise invalid(f"The invocation type `{kind}` is none of RequestResponse, Event, DryRun")
    most = LARGEST_EVENT if kind == "Event" else LARGEST_PAYLOAD
    if len(text) > most:
        raise FunctionError("RequestTooLargeException", f"Request must be smaller than {most} bytes for the {kind} operation")
    _check_json(text)
    if kind == "DryRun":
        return Response(status_code=204)
    if kind == "Event":
        number = request.app.state.events.accept(function, text or b"{}", caller.key_id)
        return Response(status_code=202, headers={"x-amzn-RequestId": number})
    outcome = await request.app.state.pools.invoke(function, text or b"{}")
    headers = {"X-Amz-Executed-Version": function.version}
    if outcome.error is not None:
        headers["X-Amz-Function-Error"] = outcome.error
    if request.headers.get("x-amz-log-type") == "Tail":
        headers["X-Amz-Log-Result"] = outcome.log_tail.decode()
    return Response(outcome.answer, 200, headers, "application/json")


def _check_json(text: bytes) -> None:
    import json

    try:
        json.loads(text or b"{}")
    except (ValueError, RecursionError) as error:
        raise FunctionError("InvalidRequestContentException", f"Could not parse request body into json: {error}") from None


def _signed(handler: Callable[[Request, Caller, bytes], Awaitable[Response]], most: int) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        try:
            try:
                text = await body(request, most)
            except Failure as failure:
                raise FunctionError("RequestTooLargeException", failure.message) from None
            caller = sigv4.verify(request, text, request.app.state.access)
            return await handler(request, caller, text)
        except FunctionError as error:
            return error_reply(error)
        except Failure as failure:
            return error_reply(
                FunctionError("AccessDeniedException" if failure.kind.status == 403 else "ServiceException", failure.sentence())
            )

    return serve


def routes() -> list[Route]:
    """The API's routes."""
    # An archive in base64, and what is around it.
    large = LARGEST_ZIP * 4 // 3 + (1 << 20)
    small = 1 << 20
    one = _PREFIX + "/{name:path}"
    return [
        Route(_PREFIX, _signed(_create, large), methods=["POST"]),
        Route(_PREFIX, _signed(_list, small), methods=["GET"]),
        Route(_PREFIX + "/", _signed(_create, large), methods=["POST"]),
        Route(_PREFIX + "/", _signed(_list, small), methods=["GET"]),
        Route(one + "/invocations", _signed(_invoke, LARGEST_PAYLOAD + 1), methods=["POST"]),
        Route(one + "/code", _signed(_update_code, large), methods=["PUT"]),
        Route(one + "/configuration", _signed(_update_configuration, small), methods=["PUT"]),
        Route(one + "/configuration", _signed(_configuration, small), methods=["GET"]),
        Route(one, _signed(_get, small), methods=["GET"]),
        Route(one, _signed(_delete, small), methods=["DELETE"]),
    ]
