"""Addresses of functions: made, looked at, changed, removed. `service.function_urls` answers there."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from cloudpilot.functions.errors import conflict, invalid, missing
from cloudpilot.functions.records import LATEST, UrlConfig
from cloudpilot.service.function_urls import address, new_id
from cloudpilot.service.http import reply
from cloudpilot.service.lambda_ import models
from cloudpilot.service.lambda_.checking import constraint, parse
from cloudpilot.service.lambda_.operations import Call, listed, route
from cloudpilot.service.lambda_.shapes import url_described

if TYPE_CHECKING:
    from starlette.routing import Route

_METHODS = frozenset(("GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "*"))


def _key(call: Call) -> tuple[str, str | None, str]:
    named = call.qualified()
    if named.qualifier is not None and (named.qualifier == LATEST or named.qualifier.isdigit()):
        raise invalid("Function URLs are for the function or for an alias, not for a version: leave the qualifier out, or name an alias")
    return named.name, named.qualifier, f"function-urls/{call.project}/{named.name}/{named.qualifier or LATEST}"


def _cors(given: models.Cors | None) -> dict[str, Any] | None:
    if given is None:
        return None
    unknown = set(given.methods or ()) - _METHODS
    if unknown:
        raise constraint(sorted(unknown), "cors.allowMethods", "satisfy enum value set: [GET, PUT, HEAD, POST, PATCH, DELETE, *]")
    return given.model_dump(by_alias=True, exclude_none=True) or None


async def _create(call: Call) -> Response:
    name, qualifier, key = _key(call)
    given = parse(models.UrlCreation, call.text)
    if call.registry.store.get(key) is not None:
        arn = call.named().arn
        raise conflict(f"Failed to create function url config for [functionArn = {arn}]. Error message: FunctionUrlConfig exists")
    url = UrlConfig(new_id(), call.project, name, qualifier, given.auth, _cors(given.cors), given.mode == "RESPONSE_STREAM")
    call.registry.store.transact({key: url.as_value(), f"function-url-ids/{url.id}": {"key": key}})
    call.note("function.url", url.arn)
    return reply(url_described(url, address(call.request, url)), 201)


def _one(call: Call) -> tuple[str, UrlConfig]:
    _, _, key = _key(call)
    entry = call.registry.store.get(key)
    if entry is None:
        raise missing("The resource you requested does not exist.")
    return key, UrlConfig.from_value(entry.value)


async def _get(call: Call) -> Response:
    url = _one(call)[1]
    return reply(url_described(url, address(call.request, url)))


async def _update(call: Call) -> Response:
    key, url = _one(call)
    given = parse(models.UrlChange, call.text)
    changes: dict[str, Any] = {"modified": time.time()}
    if given.auth is not None:
        changes["auth"] = given.auth
    if given.cors is not None:
        changes["cors"] = _cors(given.cors)
    if given.mode is not None:
        changes["stream"] = given.mode == "RESPONSE_STREAM"
    url = replace(url, **changes)
    call.registry.store.transact({key: url.as_value()})
    call.note("function.url", url.arn)
    return reply(url_described(url, address(call.request, url)))


async def _delete(call: Call) -> Response:
    key, url = _one(call)
    call.registry.store.transact({key: None, f"function-url-ids/{url.id}": None})
    call.note("function.url.delete", url.arn)
    return Response(status_code=204)


async def _list(call: Call) -> Response:
    name = call.whole()
    call.registry.get(call.project, name)
    found = [UrlConfig.from_value(entry.value) for entry in call.registry.store.range(f"function-urls/{call.project}/{name}/")]
    page, marker = call.page(found)
    return reply(listed("FunctionUrlConfigs", [url_described(each, address(call.request, each)) for each in page], marker))


def routes() -> list[Route]:
    """The operations' routes."""
    one = "/2021-10-31/functions/{name}/url"
    return [
        route(one, "POST", _create),
        route(one, "GET", _get),
        route(one, "PUT", _update),
        route(one, "DELETE", _delete),
        route("/2021-10-31/functions/{name}/urls", "GET", _list),
    ]
