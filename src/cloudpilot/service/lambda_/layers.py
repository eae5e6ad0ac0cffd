"""Layers."""

from __future__ import annotations

import urllib.parse
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from starlette.responses import Response

from cloudpilot.functions.errors import missing
from cloudpilot.service.http import reply
from cloudpilot.service.lambda_ import functions, models
from cloudpilot.service.lambda_.checking import constraint, parse
from cloudpilot.service.lambda_.downloads import location
from cloudpilot.service.lambda_.operations import Call, listed, route
from cloudpilot.service.lambda_.shapes import layer_described, sha256_of

if TYPE_CHECKING:
    from starlette.routing import Route

    from cloudpilot.functions.records import Layer


def _whole(call: Call, layer: Layer) -> dict[str, Any]:
    content = {"Location": location(call, layer.digest), "CodeSha256": sha256_of(layer.digest), "CodeSize": layer.code_size}
    return {"Content": content, "LayerArn": layer.layer_arn, **layer_described(layer)}


async def _publish(call: Call) -> Response:
    name = call.layer()
    given = parse(models.LayerCreation, call.text)
    code = await functions.unpacked(call, given.content)
    layer = call.layers.publish(
        call.project,
        name,
        **code,
        description=given.description or "",
        license=given.license,
        runtimes=given.runtimes,
        architectures=given.architectures,
    )
    call.note("layer.publish", layer.arn)
    return reply(_whole(call, layer), 201)


def _fitting(call: Call, layers: list[Layer]) -> list[Layer]:
    runtime, architecture = call.query("CompatibleRuntime"), call.query("CompatibleArchitecture")
    if architecture not in (None, "x86_64", "arm64"):
        raise constraint(architecture, "compatibleArchitecture", "satisfy enum value set: [x86_64, arm64]")
    return [
        each
        for each in layers
        if (runtime is None or runtime in (each.runtimes or ())) and (architecture is None or architecture in (each.architectures or ()))
    ]


async def _list(call: Call) -> Response:
    if call.query("find") == "LayerVersion":
        return await _by_arn(call)
    page, marker = call.page(_fitting(call, call.layers.newest(call.project)))
    items = [{"LayerName": each.name, "LayerArn": each.layer_arn, "LatestMatchingVersion": layer_described(each)} for each in page]
    return reply(listed("Layers", items, marker))


async def _by_arn(call: Call) -> Response:
    return reply(_whole(call, call.layers.of_arn(call.project, urllib.parse.unquote(call.query("Arn") or ""))))


async def _versions(call: Call) -> Response:
    page, marker = call.page(_fitting(call, call.layers.versions(call.project, call.layer())))
    return reply(listed("LayerVersions", [layer_described(each) for each in page], marker))


def _number(call: Call) -> int:
    text = call.request.path_params["version"]
    if not text.isdigit() or len(text) > 12:
        raise missing("The resource you requested does not exist.")
    return int(text)


async def _get(call: Call) -> Response:
    return reply(_whole(call, call.layers.get(call.project, call.layer(), _number(call))))


async def _delete(call: Call) -> Response:
    name, number = call.layer(), _number(call)
    call.layers.remove(call.project, name, number)
    call.note("layer.delete", f"{name}:{number}")
    await anyio.to_thread.run_sync(functions.collect, call.registry, call.registry.used_digests())
    return Response(status_code=204)


def routes() -> list[Route]:
    """The operations' routes."""
    prefix = "/2018-10-31/layers"
    one = prefix + "/{name}/versions/{version}"
    return [
        route(prefix, "GET", _list),
        route(prefix + "/{name}/versions", "POST", _publish, functions.LARGEST_UPLOAD),
        route(prefix + "/{name}/versions", "GET", _versions),
        route(one, "GET", _get),
        route(one, "DELETE", _delete),
    ]
