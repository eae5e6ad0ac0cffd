"""Versions and aliases."""

from __future__ import annotations

import base64
import binascii
from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.responses import Response

from cloudpilot.functions.errors import invalid
from cloudpilot.functions.records import Alias
from cloudpilot.functions.registry import check_revision
from cloudpilot.service.http import reply
from cloudpilot.service.lambda_ import models
from cloudpilot.service.lambda_.checking import parse
from cloudpilot.service.lambda_.operations import Call, listed, route
from cloudpilot.service.lambda_.shapes import alias_described, described

if TYPE_CHECKING:
    from starlette.routing import Route


def _digest(text: str | None) -> str | None:
    if not text:
        return None
    try:
        return base64.b64decode(text, validate=True).hex()
    except (ValueError, binascii.Error):
        raise invalid("`CodeSha256` is not base64") from None


async def _publish(call: Call) -> Response:
    name = call.whole()
    given = parse(models.Publication, call.text)
    code = _digest(given.code)
    version = call.registry.publish(call.project, name, code=code, revision=given.revision, description=given.description)
    call.note("function.publish", f"{name}:{version.version}")
    return reply(described(version), 201)


async def _versions(call: Call) -> Response:
    page, marker = call.page(call.registry.versions(call.project, call.whole()))
    return reply(listed("Versions", [described(each, each.version) for each in page], marker))


async def _create_alias(call: Call) -> Response:
    name = call.whole()
    given = parse(models.AliasCreation, call.text)
    weights = (given.routing.weights if given.routing else None) or {}
    alias = call.registry.put_alias(call.project, name, Alias(given.name, given.version, given.description or "", weights), new=True)
    call.note("function.alias", f"{name}:{alias.name}")
    return reply(alias_described(name, alias), 201)


async def _aliases(call: Call) -> Response:
    name, version = call.whole(), call.query("FunctionVersion")
    call.registry.get(call.project, name)
    aliases = call.registry.aliases(call.project, name)
    found = [each for each in aliases if version is None or version == each.version or version in each.weights]
    page, marker = call.page(found)
    return reply(listed("Aliases", [alias_described(name, each) for each in page], marker))


def _one(call: Call) -> tuple[str, Alias]:
    name = call.whole()
    return name, call.registry.alias(call.project, name, call.request.path_params["alias"])


async def _alias(call: Call) -> Response:
    return reply(alias_described(*_one(call)))


async def _update_alias(call: Call) -> Response:
    name, alias = _one(call)
    given = parse(models.AliasChange, call.text)
    check_revision(alias.revision, given.revision)
    changed = replace(
        alias,
        version=given.version or alias.version,
        description=alias.description if given.description is None else given.description,
        weights=alias.weights if given.routing is None else given.routing.weights or {},
    )
    changed = call.registry.put_alias(call.project, name, changed, new=False)
    call.note("function.alias", f"{name}:{alias.name}")
    return reply(alias_described(name, changed))


async def _delete_alias(call: Call) -> Response:
    name = call.whole()
    call.registry.get(call.project, name)
    call.registry.remove_alias(call.project, name, call.request.path_params["alias"])
    call.note("function.alias.delete", f"{name}:{call.request.path_params['alias']}")
    return Response(status_code=204)


def routes() -> list[Route]:
    """The operations' routes."""
    one = "/2015-03-31/functions/{name}"
    return [
        route(one + "/versions", "POST", _publish),
        route(one + "/versions", "GET", _versions),
        route(one + "/aliases", "POST", _create_alias),
        route(one + "/aliases", "GET", _aliases),
        route(one + "/aliases/{alias}", "GET", _alias),
        route(one + "/aliases/{alias}", "PUT", _update_alias),
        route(one + "/aliases/{alias}", "DELETE", _delete_alias),
    ]
