"""What is set for a function beside its configuration: concurrency, asynchronous calls, tags, and the account's limits."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from cloudpilot.functions.code import LARGEST_UNPACKED, LARGEST_ZIP
from cloudpilot.functions.errors import FunctionError, invalid, missing
from cloudpilot.functions.records import LATEST, EventConfig, arn_of
from cloudpilot.service.http import reply
from cloudpilot.service.lambda_ import models
from cloudpilot.service.lambda_.checking import parse
from cloudpilot.service.lambda_.names import function_named
from cloudpilot.service.lambda_.operations import Call, listed, route
from cloudpilot.service.lambda_.shapes import events_described, stamp

if TYPE_CHECKING:
    from starlette.routing import Route

MOST_CONCURRENT = 1000
"""Calls of a project that may be under way at a time, as with Lambda."""
LEAST_UNRESERVED = 100
"""Of which so many are left to functions that have reserved none."""
MOST_TAGS = 50
"""Tags of a function, as with Lambda; names have at most 128 and values 256 characters."""
_STORAGE = 75 << 30


# Concurrency.


def _all_reserved(call: Call) -> dict[str, int]:
    prefix = f"function-reserved/{call.project}/"
    return {entry.key.removeprefix(prefix): int(entry.value["limit"]) for entry in call.registry.store.range(prefix)}


async def _reserve(call: Call) -> Response:
    name = call.whole()
    call.registry.get(call.project, name)
    given = parse(models.Reservation, call.text)
    others = sum(limit for function, limit in _all_reserved(call).items() if function != name)
    if MOST_CONCURRENT - others - given.limit < LEAST_UNRESERVED:
        raise invalid(
            "Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below its minimum "
            f"value of [{LEAST_UNRESERVED}]."
        )
    provisioned = sum(call.registry.provisioned(call.project, name).values())
    if given.limit < provisioned:
        raise invalid(f"ReservedConcurrentExecutions cannot be less than the {provisioned} that are provisioned for the function")
    call.registry.store.transact({f"function-reserved/{call.project}/{name}": {"limit": given.limit}})
    call.registry.changed(call.project, name)
    call.note("function.concurrency", name)
    return reply({"ReservedConcurrentExecutions": given.limit})


async def _reserved(call: Call) -> Response:
    name = call.whole()
    call.registry.get(call.project, name)
    limit = call.registry.reserved(call.project, name)
    return reply({} if limit is None else {"ReservedConcurrentExecutions": limit})


async def _unreserve(call: Call) -> Response:
    name = call.whole()
    call.registry.get(call.project, name)
    call.registry.store.transact({f"function-reserved/{call.project}/{name}": None})
    call.registry.changed(call.project, name)
    call.note("function.concurrency", name)
    return Response(status_code=204)


def _provision_key(call: Call) -> tuple[str, str, str]:
    named = call.qualified()
    if named.qualifier is None:
        raise invalid("1 validation error detected: Value null at 'qualifier' failed to satisfy constraint: Member must not be null")
    if named.qualifier == LATEST:
        raise invalid("Provisioned Concurrency Configs cannot be applied to unpublished function versions.")
    return named.name, named.qualifier, f"function-provisioned/{call.project}/{named.name}/{named.qualifier}"


def _provision_described(call: Call, name: str, qualifier: str, value: dict[str, Any]) -> dict[str, Any]:
    version = qualifier if qualifier.isdigit() else call.registry.alias(call.project, name, qualifier).version
    wanted = int(value["instances"])
    ready = min(wanted, call.state.pools.ready(call.project, name, version))
    return {
        "RequestedProvisionedConcurrentExecutions": wanted,
        "AllocatedProvisionedConcurrentExecutions": ready,
        "AvailableProvisionedConcurrentExecutions": ready,
        "Status": "READY" if ready == wanted else "IN_PROGRESS",
        "LastModified": stamp(value["modified"]),
    }


async def _provision(call: Call) -> Response:
    name, qualifier, key = _provision_key(call)
    given = parse(models.Provision, call.text)
    found = call.registry.store.range(f"function-provisioned/{call.project}/{name}/")
    others = {entry.key: entry.value for entry in found if entry.key != key}
    reserved = call.registry.reserved(call.project, name)
    total = given.instances + sum(int(value["instances"]) for value in others.values())
    if reserved is not None and total > reserved:
        raise invalid("Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function")
    if total > MOST_CONCURRENT - LEAST_UNRESERVED:
        raise invalid(f"Specified ConcurrentExecutions for function is greater than the {MOST_CONCURRENT - LEAST_UNRESERVED} there are")
    version = qualifier if qualifier.isdigit() else call.registry.alias(call.project, name, qualifier).version
    if version == LATEST:
        raise invalid("Alias with $LATEST function version is not supported for Provisioned Concurrency")
    for other in others:
        word = other.rpartition("/")[2]
        if (word if word.isdigit() else call.registry.alias(call.project, name, word).version) == version:
            raise invalid(f"Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version: {version}")
    value = {"instances": given.instances, "modified": time.time()}
    call.registry.store.transact({key: value})
    call.registry.changed(call.project, name)
    call.note("function.provision", f"{name}:{qualifier}")
    return reply(_provision_described(call, name, qualifier, value), 202)


async def _provisioned(call: Call) -> Response:
    if call.query("List") == "ALL":
        name = call.whole()
        call.registry.get(call.project, name)
        prefix = f"function-provisioned/{call.project}/{name}/"
        items = []
        for entry in call.registry.store.range(prefix):
            qualifier = entry.key.removeprefix(prefix)
            items.append({"FunctionArn": arn_of(name, qualifier), **_provision_described(call, name, qualifier, entry.value)})
        page, marker = call.page(items)
        return reply(listed("ProvisionedConcurrencyConfigs", page, marker))
    name, qualifier, key = _provision_key(call)
    entry_or_none = call.registry.store.get(key)
    if entry_or_none is None:
        message = "No Provisioned Concurrency Config found for this function"
        raise FunctionError("ProvisionedConcurrencyConfigNotFoundException", message)
    return reply(_provision_described(call, name, qualifier, entry_or_none.value))


async def _unprovision(call: Call) -> Response:
    name, qualifier, key = _provision_key(call)
    call.registry.store.transact({key: None})
    call.registry.changed(call.project, name)
    call.note("function.provision", f"{name}:{qualifier}")
    return Response(status_code=204)


# Asynchronous calls.


def destination(call: Call, arn: str, field: str) -> str:
    """The function that an ARN names, as one to be told of calls: there are no queues and topics here."""
    if ":lambda:" not in arn or ":function:" not in arn:
        raise invalid(f"The provided destination {arn} at {field} is invalid: only functions can be destinations here. Name one by its ARN")
    named = function_named(arn)
    try:
        call.registry.check_qualifier(call.project, named.name, named.qualifier)
    except FunctionError:
        raise invalid(f"The destination {arn} at {field} does not exist: create that function first") from None
    return arn


def _event_key(call: Call) -> tuple[str, str, str]:
    named = call.qualified()
    qualifier = named.qualifier or LATEST
    return named.name, qualifier, f"function-events/{call.project}/{named.name}/{qualifier}"


def _event_config(call: Call, given: models.EventChange, before: EventConfig) -> EventConfig:
    changes: dict[str, Any] = {name: getattr(given, name) for name in ("retries", "most_age") if getattr(given, name) is not None}
    if given.destinations is not None:
        for name in ("success", "failure"):
            target: models.Destination | None = getattr(given.destinations, name)
            if target is not None:
                field = f"DestinationConfig.On{name.capitalize()}"
                changes[f"on_{name}"] = destination(call, target.arn, field) if target.arn else None
    return replace(before, **changes, modified=time.time())


async def _put_events(call: Call) -> Response:
    name, qualifier, key = _event_key(call)
    given = parse(models.EventChange, call.text)
    if call.request.method == "POST":
        entry = call.registry.store.get(key)
        if entry is None:
            raise missing(f"The function {arn_of(name, qualifier)} doesn't have an EventInvokeConfig")
        before = EventConfig.from_value(entry.value)
    else:
        if given.retries is None and given.most_age is None and given.destinations is None:
            raise invalid("You must specify at least one of error handling or destination setting.")
        before = EventConfig()
    config = _event_config(call, given, before)
    call.registry.store.transact({key: config.as_value()})
    call.note("function.events", f"{name}:{qualifier}")
    return reply(events_described(name, qualifier, config))


async def _events(call: Call) -> Response:
    name, qualifier, key = _event_key(call)
    entry = call.registry.store.get(key)
    if entry is None:
        raise missing(f"The function {arn_of(name, qualifier)} doesn't have an EventInvokeConfig")
    return reply(events_described(name, qualifier, EventConfig.from_value(entry.value)))


async def _list_events(call: Call) -> Response:
    name = call.whole()
    call.registry.get(call.project, name)
    prefix = f"function-events/{call.project}/{name}/"
    found = call.registry.store.range(prefix)
    items = [events_described(name, entry.key.removeprefix(prefix), EventConfig.from_value(entry.value)) for entry in found]
    page, marker = call.page(items)
    return reply(listed("FunctionEventInvokeConfigs", page, marker))


async def _delete_events(call: Call) -> Response:
    name, qualifier, key = _event_key(call)
    if call.registry.store.get(key) is None:
        raise missing(f"The function {arn_of(name, qualifier)} doesn't have an EventInvokeConfig")
    call.registry.store.transact({key: None})
    call.note("function.events", f"{name}:{qualifier}")
    return Response(status_code=204)


# Tags.


def check_tags(tags: dict[str, str]) -> None:
    """Refuses tags that Lambda would refuse."""
    if len(tags) > MOST_TAGS:
        raise invalid(f"A function has at most {MOST_TAGS} tags")
    for name, value in tags.items():
        if not 1 <= len(name) <= 128 or len(value) > 256:
            raise invalid("A tag's name has 1 to 128 characters, its value at most 256")
        if name.lower().startswith("aws:"):
            raise invalid("Names of tags that begin with `aws:` are reserved")


def tags_of(call: Call, name: str) -> dict[str, str]:
    """A function's tags."""
    entry = call.registry.store.get(f"function-tags/{call.project}/{name}")
    return {} if entry is None else entry.value


def _tagged(call: Call) -> str:
    resource = call.request.path_params["resource"]
    if not resource.startswith("arn:"):
        raise invalid(f"`{resource[:100]}` is no ARN: tags are told by the function's ARN")
    name = function_named(resource).unqualified()
    call.registry.get(call.project, name)
    return name


async def _tags(call: Call) -> Response:
    return reply({"Tags": tags_of(call, _tagged(call))})


async def _tag(call: Call) -> Response:
    name = _tagged(call)
    tags = {**tags_of(call, name), **parse(models.Tagging, call.text).tags}
    check_tags(tags)
    call.registry.store.transact({f"function-tags/{call.project}/{name}": tags})
    call.note("function.tags", name)
    return Response(status_code=204)


async def _untag(call: Call) -> Response:
    name = _tagged(call)
    gone = call.request.query_params.getlist("tagKeys")
    if not gone:
        raise invalid("1 validation error detected: Value null at 'tagKeys' failed to satisfy constraint: Member must not be null")
    tags = {key: value for key, value in tags_of(call, name).items() if key not in gone}
    call.registry.store.transact({f"function-tags/{call.project}/{name}": tags})
    call.note("function.tags", name)
    return Response(status_code=204)


# What has one answer, or none, here.


async def _account(call: Call) -> Response:
    functions = call.registry.all(call.project)
    reserved = sum(_all_reserved(call).values())
    return reply(
        {
            "AccountLimit": {
                "TotalCodeSize": _STORAGE,
                "CodeSizeUnzipped": LARGEST_UNPACKED,
                "CodeSizeZipped": LARGEST_ZIP,
                "ConcurrentExecutions": MOST_CONCURRENT,
                "UnreservedConcurrentExecutions": MOST_CONCURRENT - reserved,
            },
            "AccountUsage": {"TotalCodeSize": sum(each.code_size for each in functions), "FunctionCount": len(functions)},
        }
    )


def _option(call: Call, name: str) -> dict[str, Any]:
    entry = call.registry.store.get(f"function-options/{call.project}/{name}")
    return {} if entry is None else entry.value


async def _recursion(call: Call) -> Response:
    name = call.whole()
    call.registry.get(call.project, name)
    options = _option(call, name)
    if call.request.method == "PUT":
        options["recursion"] = parse(models.Recursion, call.text).loop
        call.registry.store.transact({f"function-options/{call.project}/{name}": options})
        call.note("function.recursion", name)
    return reply({"RecursiveLoop": options.get("recursion", "Terminate")})


async def _runtime(call: Call) -> Response:
    named = call.qualified()
    options = _option(call, named.name)
    if call.request.method == "PUT":
        given = parse(models.RuntimeManagement, call.text)
        if given.update == "Manual":
            raise invalid("Versions of runtimes cannot be chosen here: the runtime is what the host has. Use Auto or FunctionUpdate")
        options["runtime"] = given.update
        call.registry.store.transact({f"function-options/{call.project}/{named.name}": options})
        call.note("function.runtime", named.name)
    return reply({"UpdateRuntimeOn": options.get("runtime", "Auto"), "FunctionArn": arn_of(named.name, named.qualifier)})


def routes() -> list[Route]:
    """The operations' routes."""
    provisioned = "/2019-09-30/functions/{name}/provisioned-concurrency"
    events = "/2019-09-25/functions/{name}/event-invoke-config"
    tags = "/2017-03-31/tags/{resource}"
    recursion = "/2024-08-31/functions/{name}/recursion-config"
    runtime = "/2021-07-20/functions/{name}/runtime-management-config"
    return [
        route("/2017-10-31/functions/{name}/concurrency", "PUT", _reserve),
        route("/2017-10-31/functions/{name}/concurrency", "DELETE", _unreserve),
        route("/2019-09-30/functions/{name}/concurrency", "GET", _reserved),
        route(provisioned, "PUT", _provision),
        route(provisioned, "GET", _provisioned),
        route(provisioned, "DELETE", _unprovision),
        route(events, "PUT", _put_events),
        route(events, "POST", _put_events),
        route(events, "GET", _events),
        route(events, "DELETE", _delete_events),
        route(events + "/list", "GET", _list_events),
        route(tags, "GET", _tags),
        route(tags, "POST", _tag),
        route(tags, "DELETE", _untag),
        route("/2016-08-19/account-settings", "GET", _account),
        route("/2016-08-19/account-settings/", "GET", _account),
        route(recursion, "GET", _recursion),
        route(recursion, "PUT", _recursion),
        route(runtime, "GET", _runtime),
        route(runtime, "PUT", _runtime),
    ]
