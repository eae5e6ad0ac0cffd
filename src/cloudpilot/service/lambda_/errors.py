"""Refusals as Lambda's clients know them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudpilot.service.http import reply

if TYPE_CHECKING:
    from starlette.responses import Response


class LambdaError(Exception):
    """A refusal.

    Attributes:
        status: HTTP's word for it.
        kind: Lambda's.
        message: What was refused and why.
    """

    def __init__(self, status: int, kind: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message

    def reply(self) -> Response:
        """The answer."""
        value = {"Type": "User" if self.status < 500 else "Service", "Message": self.message, "message": self.message}
        return reply(value, self.status, {"X-Amzn-ErrorType": self.kind})


def invalid(message: str) -> LambdaError:
    """A parameter that is not right."""
    return LambdaError(400, "InvalidParameterValueException", message)
