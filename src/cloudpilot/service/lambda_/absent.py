"""Operations on what there is nothing of here: lists are empty, single ones are not found, and to make one is refused with the reason."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudpilot.functions.errors import FunctionError, invalid
from cloudpilot.service.http import reply
from cloudpilot.service.lambda_.operations import Call, route

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.responses import Response
    from starlette.routing import Route

    Handler = Callable[[Call], Awaitable[Response]]


def _empty(name: str) -> Handler:
    async def serve(call: Call) -> Response:
        return reply({name: []})

    return serve


def _nothing(what: str, kind: str = "ResourceNotFoundException") -> Handler:
    async def serve(call: Call) -> Response:
        raise FunctionError(kind, f"There is no such {what}")

    return serve


def _refused(message: str) -> Handler:
    async def serve(call: Call) -> Response:
        raise invalid(message)

    return serve


def _of_function(handler: Handler) -> Handler:
    async def serve(call: Call) -> Response:
        call.registry.get(call.project, call.whole())
        return await handler(call)

    return serve


async def _signing(call: Call) -> Response:
    return reply({"CodeSigningConfigArn": "", "FunctionName": call.whole()})


def routes() -> list[Route]:
    """The operations' routes."""
    sources, source = "/2015-03-31/event-source-mappings", "/2015-03-31/event-source-mappings/{id}"
    signings, signing = "/2020-04-22/code-signing-configs", "/2020-04-22/code-signing-configs/{id}"
    signed = "/2020-06-30/functions/{name}/code-signing-config"
    providers, provider = "/2025-11-30/capacity-providers", "/2025-11-30/capacity-providers/{id}"
    scaling = "/2025-11-30/functions/{name}/function-scaling-config"
    durable = "/2025-12-01/durable-executions/{id}"
    no_source, no_signing, no_provider, no_durable = (
        _nothing(what) for what in ("event source mapping", "code signing configuration", "capacity provider", "durable execution")
    )
    no_queue = _refused("There are no event sources here: read your queue in a program of your own, and call the function")
    no_signatures = _refused("Code signing is not supported here: code is told by its CodeSha256")
    one_host = _refused("Capacity providers are not supported here: functions run on this host")
    not_signed = _nothing("code signing configuration", "CodeSigningConfigNotFoundException")
    return [
        *(route(path, "GET", _empty("EventSourceMappings")) for path in (sources, sources + "/")),
        *(route(path, "POST", no_queue) for path in (sources, sources + "/")),
        *(route(source, method, no_source) for method in ("GET", "PUT", "DELETE")),
        *(route(path, "GET", _empty("CodeSigningConfigs")) for path in (signings, signings + "/")),
        *(route(path, "POST", no_signatures) for path in (signings, signings + "/")),
        *(route(signing, method, no_signing) for method in ("GET", "PUT", "DELETE")),
        route(signing + "/functions", "GET", no_signing),
        route(signed, "GET", _of_function(_signing)),
        route(signed, "PUT", _of_function(not_signed)),
        route(signed, "DELETE", _of_function(not_signed)),
        route(providers, "GET", _empty("CapacityProviders")),
        route(providers, "POST", one_host),
        *(route(provider, method, no_provider) for method in ("GET", "PUT", "DELETE")),
        route(provider + "/function-versions", "GET", no_provider),
        route(scaling, "GET", _of_function(_nothing("function scaling configuration"))),
        route(scaling, "PUT", _of_function(one_host)),
        route("/2025-12-01/functions/{name}/durable-executions", "GET", _of_function(_empty("DurableExecutions"))),
        *(route(durable + path, "GET", no_durable) for path in ("", "/history")),
        *(route(durable + path, "POST", no_durable) for path in ("/pause", "/resume", "/stop")),
        # These know no answer for what is not there.
        route(durable + "/state", "GET", _nothing("durable execution", "InvalidParameterValueException")),
        route(durable + "/checkpoint", "POST", _nothing("durable execution", "InvalidParameterValueException")),
        route(durable, "DELETE", no_durable),
        *(route(f"/2025-12-01/durable-execution-callbacks/{{id}}/{path}", "POST", no_durable) for path in ("fail", "heartbeat", "succeed")),
    ]
