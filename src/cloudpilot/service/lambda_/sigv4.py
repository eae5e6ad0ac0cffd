"""AWS signatures, version 4: who sent a request, and that nobody changed it."""

from __future__ import annotations

import hashlib
import hmac
import re
import urllib.parse
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloudpilot.functions.errors import FunctionError

if TYPE_CHECKING:
    from starlette.requests import Request

    from cloudpilot.service.access import Access, Caller

PATIENCE = 15 * 60
"""Seconds that a signature holds, before and after its date."""
_ALGORITHM = "AWS4-HMAC-SHA256"
_HEADER = re.compile(
    r"AWS4-HMAC-SHA256 +Credential=([^,/ ]+)/(\d{8})/([\w-]+)/(\w+)/aws4_request *, *SignedHeaders=([\w;-]+) *, *Signature=([0-9a-f]{64})"
)


def verify(request: Request, body: bytes, access: Access) -> Caller:
    """Who signed a request."""
    text = request.headers.get("authorization")
    if not text:
        raise FunctionError("MissingAuthenticationTokenException", "Missing Authentication Token")
    found = _HEADER.fullmatch(text.strip())
    if found is None:
        raise FunctionError("IncompleteSignatureException", "The header `Authorization` is not a signature of version 4")
    key_id, day, region, service, names, signature = found.groups()
    signed = names.split(";")
    stamp = request.headers.get("x-amz-date", "")
    _check_date(stamp, day)
    if "host" not in signed or "x-amz-date" not in signed:
        raise FunctionError("InvalidSignatureException", "The headers `host` and `x-amz-date` must be signed")
    credentials = access.aws_credentials(key_id)
    if credentials is None:
        raise FunctionError("UnrecognizedClientException", "The security token included in the request is invalid.")
    caller, secret = credentials
    canonical = "\n".join(
        (
            request.method,
            urllib.parse.quote(request.scope["raw_path"].decode("latin-1"), safe="/-_.~"),
            _query(request.scope["query_string"].decode("latin-1")),
            *(f"{name}:{' '.join(','.join(request.headers.getlist(name)).split())}" for name in signed),
            "",
            names,
            # Of what really came, whatever the client says that it sent.
            hashlib.sha256(body).hexdigest(),
        )
    )
    scope = f"{day}/{region}/{service}/aws4_request"
    to_sign = f"{_ALGORITHM}\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    if not hmac.compare_digest(hmac.new(key, to_sign.encode(), hashlib.sha256).hexdigest(), signature):
        message = "The request signature we calculated does not match the signature you provided. Check your secret access key."
        raise FunctionError("InvalidSignatureException", message)
    return caller


def _check_date(stamp: str, day: str) -> None:
    try:
        when = datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        raise FunctionError("IncompleteSignatureException", "The header `X-Amz-Date` is missing or malformed") from None
    now = datetime.now(UTC)
    if abs((now - when).total_seconds()) > PATIENCE or not stamp.startswith(day):
        message = f"Signature expired: {stamp} is not within {PATIENCE // 60} minutes of {now:%Y%m%dT%H%M%SZ}"
        raise FunctionError("InvalidSignatureException", message)


def _query(text: str) -> str:
    pairs = urllib.parse.parse_qsl(text, keep_blank_values=True)
    quoted = sorted((urllib.parse.quote(name, safe="-_.~"), urllib.parse.quote(value, safe="-_.~")) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in quoted)
