"""Refusals as Lambda's clients know them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudpilot.service.http import reply

if TYPE_CHECKING:
    from starlette.responses import Response

    from cloudpilot.functions.errors import FunctionError

_STATUS = {
    "AccessDeniedException": 403,
    "IncompleteSignatureException": 403,
    "InvalidSignatureException": 403,
    "MissingAuthenticationTokenException": 403,
    "UnrecognizedClientException": 403,
    "CodeSigningConfigNotFoundException": 404,
    "ProvisionedConcurrencyConfigNotFoundException": 404,
    "ResourceNotFoundException": 404,
    "ResourceConflictException": 409,
    "PreconditionFailedException": 412,
    "RequestTooLargeException": 413,
    "TooManyRequestsException": 429,
    "ServiceException": 500,
}
"""What HTTP calls them; all others are 400."""
_RETRY_AFTER = "1"
"""Seconds after which a call that was one too many may be tried again: calls are short."""


def status_of(error: FunctionError) -> int:
    """What HTTP calls it."""
    return _STATUS.get(error.kind, 400)


def error_reply(error: FunctionError) -> Response:
    """The answer."""
    status = status_of(error)
    # Some of the exceptions have their message under the one name, some under the other.
    value = {"Type": "User" if status < 500 else "Service", "Message": error.message, "message": error.message}
    headers = {"X-Amzn-ErrorType": error.kind}
    if error.reason is not None:
        value["Reason"] = error.reason
    if status == 429:
        headers["Retry-After"] = _RETRY_AFTER
    return reply(value, status, headers)
