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
    "ResourceNotFoundException": 404,
    "ResourceConflictException": 409,
    "RequestTooLargeException": 413,
    "TooManyRequestsException": 429,
    "ServiceException": 500,
}
"""What HTTP calls them; all others are 400."""


def status_of(error: FunctionError) -> int:
    """What HTTP calls it."""
    return _STATUS.get(error.kind, 400)


def error_reply(error: FunctionError) -> Response:
    """The answer."""
    status = status_of(error)
    value = {"Type": "User" if status < 500 else "Service", "Message": error.message, "message": error.message}
    if error.reason is not None:
        value["Reason"] = error.reason
    return reply(value, status, {"X-Amzn-ErrorType": error.kind})
