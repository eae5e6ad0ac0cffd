"""What a function at an address is given and answers: Lambda's payload format 2.0."""

from __future__ import annotations

import base64
import json
import re
import time
import urllib.parse
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cloudpilot.functions.records import ACCOUNT

if TYPE_CHECKING:
    from starlette.requests import Request

    from cloudpilot.functions.records import UrlConfig
    from cloudpilot.hosting.access import Caller

LONGEST_PRELUDE = 64 << 10
"""Bytes of status and headers before a stream."""
_PRELUDE_END = bytes(8)
"""What divides status and headers, in JSON, which holds no zero bytes, from the body of a streamed answer."""
_TEXT = re.compile(r"text/|application/(json|javascript|xml|x-www-form-urlencoded|graphql)|.*\+(json|xml)")
_OF_THE_CONNECTION = frozenset(
    ("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade", "content-length")
)
NO_BODY = (204, 304)
"""Statuses whose answers have no body, whatever the function says."""
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@dataclass(frozen=True, slots=True)
class Answer:
    """What an address answers."""

    status: int
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""


class MalformedError(Exception):
    """The function's answer is none that HTTP could carry."""


def event_of(
    request: Request, url: UrlConfig, path: str, body: bytes, headers: list[tuple[str, str]], number: str, caller: Caller | None
) -> bytes:
    """The event for a request. `headers` is what the function may see of them."""
    joined: dict[str, str] = {}
    for name, value in headers:
        if name != "cookie":
            joined[name] = f"{joined[name]},{value}" if name in joined else value
    query = request.scope["query_string"].decode("latin-1")
    parameters: dict[str, str] = {}
    for name, value in urllib.parse.parse_qsl(query, keep_blank_values=True):
        parameters[name] = f"{parameters[name]},{value}" if name in parameters else value
    text, encoded = _text_of(body, joined.get("content-type", ""))
    now = time.time()
    domain = joined.get("host", "")
    context: dict[str, Any] = {
        "accountId": "anonymous" if caller is None else ACCOUNT,
        "apiId": url.id,
        "domainName": domain,
        "domainPrefix": url.id,
        "http": {
            "method": request.method,
            "path": path,
            "protocol": f"HTTP/{request.scope['http_version']}",
            "sourceIp": request.client.host if request.client else "",
            "userAgent": joined.get("user-agent", ""),
        },
        "requestId": number,
        "routeKey": "$default",
        "stage": "$default",
        "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
        "timeEpoch": int(now * 1000),
    }
    if caller is not None:
        who = {"accessKey": caller.key_id, "accountId": ACCOUNT, "callerId": caller.key_id, "userId": caller.key_id}
        context["authorizer"] = {"iam": {**who, "cognitoIdentity": None, "principalOrgId": None, "userArn": f"arn:aws:iam::{ACCOUNT}:root"}}
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": "$default",
        "rawPath": path,
        "rawQueryString": query,
        "headers": joined,
        "requestContext": context,
        "isBase64Encoded": encoded,
    }
    cookies = [each.strip() for name, value in headers if name == "cookie" for each in value.split(";") if each.strip()]
    if cookies:
        event["cookies"] = cookies
    if parameters:
        event["queryStringParameters"] = parameters
    if body:
        event["body"] = text
    return json.dumps(event, separators=(",", ":")).encode()


def _text_of(body: bytes, kind: str) -> tuple[str, bool]:
    if _TEXT.match(kind):
        try:
            return body.decode(), False
        except UnicodeDecodeError:
            pass
    return base64.b64encode(body).decode(), bool(body)


def prelude_of(data: bytes) -> tuple[int, list[tuple[str, str]], bytes] | None:
    """Status, headers and the beginning of the body, if that is a streamed answer's beginning and is all there; none if more must come."""
    head, zeros, rest = data.partition(_PRELUDE_END)
    if not zeros:
        if len(data) > LONGEST_PRELUDE:
            raise MalformedError(f"Status and headers of the stream have more than {LONGEST_PRELUDE} bytes")
        return None
    try:
        value = json.loads(head)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise MalformedError("What comes before the eight zero bytes of the stream is no JSON object")
    return *head_of(value), rest


def answer_of(answer: bytes) -> Answer:
    """What to answer in HTTP when the function has answered that."""
    if answer.startswith(b"{") and _PRELUDE_END in answer:
        found = prelude_of(answer)
        assert found is not None
        return Answer(*found)
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return Answer(200, [("content-type", "application/json")], answer)
    if not isinstance(value, dict) or "statusCode" not in value:
        return Answer(200, [("content-type", "application/json")], answer)
    status, headers = head_of(value)
    body = value.get("body", "")
    if body is None:
        body = ""
    if not isinstance(body, str):
        raise MalformedError("`body` is no string")
    if not value.get("isBase64Encoded"):
        return Answer(status, headers, body.encode("utf-8", "surrogatepass"))
    try:
        return Answer(status, headers, base64.b64decode(body, validate=True))
    except ValueError:
        raise MalformedError("`body` is not base64, but `isBase64Encoded` says so") from None


def head_of(value: dict[str, Any]) -> tuple[int, list[tuple[str, str]]]:
    """Status and headers of an answer, without what belongs to the connection."""
    try:
        status = int(value.get("statusCode", 200))
    except (TypeError, ValueError):
        raise MalformedError("`statusCode` is no number") from None
    if not 200 <= status <= 599:
        raise MalformedError("`statusCode` is none of HTTP's")
    given = value.get("headers") or {}
    cookies = value.get("cookies") or []
    if not isinstance(given, dict) or not isinstance(cookies, list):
        raise MalformedError("`headers` is no object, or `cookies` no list")
    headers = [(str(name).lower(), _header(each)) for name, each in given.items() if str(name).lower() not in _OF_THE_CONNECTION]
    headers += [("set-cookie", _header(each)) for each in cookies]
    if any(not _NAME.fullmatch(name) or re.search(r"[\r\n\0]", each) for name, each in headers):
        raise MalformedError("A header holds what no header may")
    if not any(name == "content-type" for name, _ in headers):
        headers.append(("content-type", "application/json"))
    return status, headers


def _header(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if not isinstance(value, str | int | float):
        raise MalformedError("A header is no string")
    return str(value)
