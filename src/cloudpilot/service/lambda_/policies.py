"""Policies of functions and layers: kept and answered. Who may do what here is a matter of keys, roles and projects."""

from __future__ import annotations

import hashlib
import json
import uuid
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from cloudpilot.functions.errors import FunctionError, conflict, invalid, missing
from cloudpilot.functions.layers import policy_key
from cloudpilot.functions.records import ACCOUNT, LATEST
from cloudpilot.functions.registry import check_revision
from cloudpilot.service.http import reply
from cloudpilot.service.lambda_ import models
from cloudpilot.service.lambda_.checking import parse
from cloudpilot.service.lambda_.names import function_named
from cloudpilot.service.lambda_.operations import Call, route

if TYPE_CHECKING:
    from starlette.routing import Route

LARGEST_POLICY = 20 << 10
"""Bytes of a policy, as with Lambda."""
_NO_POLICY = "No policy is associated with the given resource."


class _Policy:
    """One resource's policy in the store."""

    def __init__(self, call: Call, key: str) -> None:
        self._store = call.registry.store
        self._key = key
        entry = self._store.get(key)
        self.statements: list[dict[str, Any]] = [] if entry is None else entry.value["statements"]
        self.id = "default"

    @property
    def text(self) -> str:
        return json.dumps({"Version": "2012-10-17", "Id": self.id, "Statement": self.statements}, separators=(",", ":"))

    @property
    def revision(self) -> str:
        return str(uuid.UUID(bytes=hashlib.sha256(self.text.encode()).digest()[:16]))

    def need(self) -> None:
        if not self.statements:
            raise missing(_NO_POLICY)

    def add(self, statement: dict[str, Any]) -> str:
        if any(each["Sid"] == statement["Sid"] for each in self.statements):
            raise conflict(
                f"The statement id ({statement['Sid']}) provided already exists. "
                "Please provide a new statement id, or remove the existing statement."
            )
        self.statements.append(statement)
        if len(self.text) > LARGEST_POLICY:
            raise FunctionError("PolicyLengthExceededException", f"The final policy size is bigger than the limit ({LARGEST_POLICY}).")
        self.save()
        return json.dumps(statement, separators=(",", ":"))

    def remove(self, sid: str) -> None:
        left = [each for each in self.statements if each.get("Sid") != sid]
        if len(left) == len(self.statements):
            raise missing(f"Statement {sid} is not found in resource policy.")
        self.statements = left
        self.save()

    def save(self) -> None:
        self._store.transact({self._key: {"statements": self.statements} if self.statements else None})

    def shown(self) -> dict[str, Any]:
        self.need()
        return {"Policy": self.text, "RevisionId": self.revision}


def _of_function(call: Call) -> tuple[_Policy, str]:
    named = call.qualified()
    if named.qualifier == LATEST:
        raise invalid("We currently do not support adding policies for $LATEST.")
    return _Policy(call, f"function-policies/{call.project}/{named.name}/{named.qualifier or LATEST}"), named.arn


def _principal(text: str) -> Any:
    if text == "*":
        return text
    if text.isdigit() and len(text) == len(ACCOUNT):
        return {"AWS": f"arn:aws:iam::{text}:root"}
    return {"AWS": text} if text.startswith("arn:") else {"Service": text}


async def _add(call: Call) -> Response:
    policy, arn = _of_function(call)
    given = parse(models.Permission, call.text)
    check_revision(policy.revision, given.revision)
    conditions: dict[str, dict[str, Any]] = {}
    for kind, key, value in (
        ("ArnLike", "AWS:SourceArn", given.source),
        ("StringEquals", "AWS:SourceAccount", given.account),
        ("StringEquals", "lambda:EventSourceToken", given.token),
        ("StringEquals", "lambda:FunctionUrlAuthType", given.url_auth),
        ("StringEquals", "aws:PrincipalOrgID", given.organization),
        ("Bool", "lambda:InvokedViaFunctionUrl", None if given.via_url is None else str(given.via_url).lower()),
    ):
        if value is not None:
            conditions.setdefault(kind, {})[key] = value
    statement = {"Sid": given.id, "Effect": "Allow", "Principal": _principal(given.principal), "Action": given.action, "Resource": arn}
    text = policy.add({**statement, **({"Condition": conditions} if conditions else {})})
    call.note("function.policy", arn)
    return reply({"Statement": text}, 201)


async def _get(call: Call) -> Response:
    policy, _ = _of_function(call)
    return reply(policy.shown())


async def _remove(call: Call) -> Response:
    policy, arn = _of_function(call)
    policy.need()
    check_revision(policy.revision, call.query("RevisionId"))
    policy.remove(call.request.path_params["statement"])
    call.note("function.policy", arn)
    return Response(status_code=204)


# The same, as a whole.


def _of_resource(call: Call) -> tuple[_Policy, str]:
    named = function_named(call.request.path_params["resource"])
    call.registry.check_qualifier(call.project, named.name, named.qualifier)
    return _Policy(call, f"function-policies/{call.project}/{named.name}/{named.qualifier or LATEST}"), named.arn


async def _whole(call: Call) -> Response:
    return reply(_of_resource(call)[0].shown())


async def _put_whole(call: Call) -> Response:
    policy, arn = _of_resource(call)
    given = parse(models.ResourcePolicy, call.text)
    check_revision(policy.revision, given.revision)
    try:
        statements = json.loads(given.policy)["Statement"]
        wrong = not isinstance(statements, list) or not statements or any("Effect" not in each for each in statements)
    except (ValueError, TypeError, KeyError, RecursionError):
        wrong = True
    if wrong:
        raise invalid("The policy is not valid: it is a JSON object with a list of objects as `Statement`, which have an `Effect`")
    policy.statements = [{"Sid": str(number), **each} for number, each in enumerate(statements)]
    policy.save()
    call.note("function.policy", arn)
    return reply(policy.shown())


async def _delete_whole(call: Call) -> Response:
    policy, arn = _of_resource(call)
    policy.need()
    check_revision(policy.revision, call.query("RevisionId"))
    policy.statements = []
    policy.save()
    call.note("function.policy", arn)
    return Response(status_code=204)


# Of layers.


def _of_layer(call: Call) -> tuple[_Policy, str]:
    number = call.request.path_params["version"]
    layer = call.layers.get(call.project, call.layer(), int(number) if number.isdigit() else 0)
    return _Policy(call, policy_key(layer.project, layer.name, layer.version)), layer.arn


async def _add_to_layer(call: Call) -> Response:
    policy, arn = _of_layer(call)
    given = parse(models.LayerPermission, call.text)
    check_revision(policy.revision, call.query("RevisionId"))
    statement: dict[str, Any] = {
        "Sid": given.id,
        "Effect": "Allow",
        "Principal": _principal(given.principal),
        "Action": given.action,
        "Resource": arn,
    }
    if given.organization is not None:
        statement["Condition"] = {"StringEquals": {"aws:PrincipalOrgID": given.organization}}
    text = policy.add(statement)
    call.note("layer.policy", arn)
    return reply({"Statement": text, "RevisionId": policy.revision}, 201)


async def _get_of_layer(call: Call) -> Response:
    return reply(_of_layer(call)[0].shown())


async def _remove_from_layer(call: Call) -> Response:
    policy, arn = _of_layer(call)
    policy.need()
    check_revision(policy.revision, call.query("RevisionId"))
    policy.remove(call.request.path_params["statement"])
    call.note("layer.policy", arn)
    return Response(status_code=204)


def routes() -> list[Route]:
    """The operations' routes."""
    one = "/2015-03-31/functions/{name}/policy"
    layer = "/2018-10-31/layers/{name}/versions/{version}/policy"
    whole = "/2026-07-09/resource-policy/{resource}"
    return [
        route(one, "POST", _add),
        route(one, "GET", _get),
        route(one + "/{statement}", "DELETE", _remove),
        route(whole, "GET", _whole),
        route(whole, "PUT", _put_whole),
        route(whole, "DELETE", _delete_whole),
        route(layer, "POST", _add_to_layer),
        route(layer, "GET", _get_of_layer),
        route(layer + "/{statement}", "DELETE", _remove_from_layer),
    ]
