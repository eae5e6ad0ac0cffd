"""AWS signatures, version 4: who sent a request, and that nobody changed it. They come in a header, or in a presigned address."""

from __future__ import annotations

import functools
import hashlib
import hmac
import re
import urllib.parse
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cloudpilot.functions.errors import FunctionError

if TYPE_CHECKING:
    from starlette.requests import Request

    from cloudpilot.hosting.access import Access, Caller

PATIENCE = 15 * 60
"""Seconds that a signature holds, before and after its date."""
LONGEST_PRESIGNED = 7 * 24 * 3600
"""Seconds that a presigned address may hold, as with AWS."""
_ALGORITHM = "AWS4-HMAC-SHA256"
_CREDENTIAL = r"([^,/ ]+)/(\d{8})/([\w-]+)/([\w-]+)/aws4_request"
_HEADER = re.compile(rf"AWS4-HMAC-SHA256 +Credential={_CREDENTIAL} *, *SignedHeaders=([\w;-]+) *, *Signature=([0-9a-f]{{64}})")


@dataclass(frozen=True, slots=True)
class _Signature:
    """What a client claims to have signed, and with what.

    Attributes:
        key_id: Who it says it is.
        day: The day of its key.
        region: The region of its key; any is taken.
        service: The service of its key.
        names: Names of the headers that were signed.
        signature: The signature.
        stamp: When it was made.
        seconds: How long it holds; none is as long as clocks may differ.
    """

    key_id: str
    day: str
    region: str
    service: str
    names: str
    signature: str
    stamp: str
    seconds: int | None = None


def is_signed(request: Request) -> bool:
    """Whether a request claims to be signed."""
    return request.headers.get("authorization", "").startswith(_ALGORITHM) or "X-Amz-Signature" in request.query_params


def verify(request: Request, body: bytes, access: Access) -> Caller:
    """Who signed a request."""
    text = request.headers.get("authorization")
    if text:
        claim = _from_header(text, request.headers.get("x-amz-date", ""))
    elif "X-Amz-Signature" in request.query_params:
        claim = _from_query(request)
    else:
        raise FunctionError("MissingAuthenticationTokenException", "Missing Authentication Token")
    _check_date(claim)
    signed = claim.names.split(";")
    if "host" not in signed or (claim.seconds is None and "x-amz-date" not in signed):
        raise FunctionError("InvalidSignatureException", "The headers `host` and `x-amz-date` must be signed")
    if claim.service != "lambda":
        message = f"Credential should be scoped to correct service: 'lambda'. This one is for '{claim.service}'"
        raise FunctionError("InvalidSignatureException", message)
    credentials = access.aws_credentials(claim.key_id)
    if credentials is None:
        raise FunctionError("UnrecognizedClientException", "The security token included in the request is invalid.")
    caller, secret = credentials
    canonical = "\n".join(
        (
            request.method,
            urllib.parse.quote(request.scope["raw_path"].decode("latin-1"), safe="/-_.~"),
            _query(request.scope["query_string"].decode("latin-1")),
            *_lines(request.scope["headers"], signed),
            "",
            claim.names,
            # Of what really came, whatever the client says that it sent.
            hashlib.sha256(body).hexdigest(),
        )
    )
    scope = f"{claim.day}/{claim.region}/{claim.service}/aws4_request"
    to_sign = f"{_ALGORITHM}\n{claim.stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = _key(secret, claim.day, claim.region, claim.service)
    if not hmac.compare_digest(hmac.digest(key, to_sign.encode(), "sha256").hex(), claim.signature):
        message = "The request signature we calculated does not match the signature you provided. Check your secret access key."
        raise FunctionError("InvalidSignatureException", message)
    return caller


@functools.lru_cache(maxsize=1024)
def _key(secret: str, day: str, region: str, service: str) -> bytes:
    """What signs everything of a day: made once, not once a request."""
    key = f"AWS4{secret}".encode()
    for part in (day, region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key


def _lines(headers: list[tuple[bytes, bytes]], names: list[str]) -> list[str]:
    """Headers as they are signed."""
    values: dict[str, list[str]] = {name: [] for name in names}
    for name, value in headers:
        if (known := values.get(name.decode("latin-1"))) is not None:
            known.append(value.decode("latin-1"))
    return [f"{name}:{' '.join(','.join(values[name]).split())}" for name in names]


def _from_header(text: str, stamp: str) -> _Signature:
    found = _HEADER.fullmatch(text.strip())
    if found is None:
        raise FunctionError("IncompleteSignatureException", "The header `Authorization` is not a signature of version 4")
    key_id, day, region, service, names, signature = found.groups()
    return _Signature(key_id, day, region, service, names, signature, stamp)


def _from_query(request: Request) -> _Signature:
    given = request.query_params
    found = re.fullmatch(_CREDENTIAL, given.get("X-Amz-Credential", ""))
    names, signature, seconds = given.get("X-Amz-SignedHeaders", ""), given["X-Amz-Signature"], given.get("X-Amz-Expires", "")
    whole = (
        found is not None
        and given.get("X-Amz-Algorithm") == _ALGORITHM
        and re.fullmatch(r"[\w;-]+", names)
        and re.fullmatch("[0-9a-f]{64}", signature)
        and re.fullmatch(r"\d{1,6}", seconds)
    )
    if not whole or found is None:
        raise FunctionError("IncompleteSignatureException", "The address is not presigned with a whole signature of version 4")
    if not 1 <= int(seconds) <= LONGEST_PRESIGNED:
        raise FunctionError("InvalidSignatureException", f"`X-Amz-Expires` must be 1 to {LONGEST_PRESIGNED} seconds")
    key_id, day, region, service = found.groups()
    return _Signature(key_id, day, region, service, names, signature, given.get("X-Amz-Date", ""), int(seconds))


def _check_date(claim: _Signature) -> None:
    try:
        when = _moment(claim.stamp)
    except ValueError:
        raise FunctionError("IncompleteSignatureException", "The header `X-Amz-Date` is missing or malformed") from None
    now = datetime.now(UTC)
    age = (now - when).total_seconds()
    if not claim.stamp.startswith(claim.day):
        message = "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP"
        raise FunctionError("InvalidSignatureException", message)
    if age < -PATIENCE:
        message = f"Signature not yet current: {claim.stamp} is still later than {now:%Y%m%dT%H%M%SZ} ({PATIENCE // 60} min. ahead)"
        raise FunctionError("InvalidSignatureException", message)
    if age > (PATIENCE if claim.seconds is None else claim.seconds):
        what = f"{PATIENCE // 60} min." if claim.seconds is None else f"{claim.seconds} s"
        message = f"Signature expired: {claim.stamp} is now earlier than {now:%Y%m%dT%H%M%SZ} - {what}"
        raise FunctionError("InvalidSignatureException", message)


@functools.lru_cache(maxsize=256)
def _moment(stamp: str) -> datetime:
    """The time that a request has on it; all of a second have the same."""
    return datetime.strptime(stamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)


def _query(text: str) -> str:
    if not text:
        return ""
    pairs = [each for each in urllib.parse.parse_qsl(text, keep_blank_values=True) if each[0] != "X-Amz-Signature"]
    quoted = sorted((urllib.parse.quote(name, safe="-_.~"), urllib.parse.quote(value, safe="-_.~")) for name, value in pairs)
    return "&".join(f"{name}={value}" for name, value in quoted)
