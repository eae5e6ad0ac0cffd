"""Refusals. Their kinds have the names that Lambda's documentation gives them."""

from __future__ import annotations


class FunctionError(Exception):
    """A request that is refused.

    Attributes:
        kind: Lambda's name for it.
        message: What was refused and why.
        reason: What exactly, where Lambda has a word for it, like `ReservedFunctionConcurrentInvocationLimitExceeded`.
    """

    def __init__(self, kind: str, message: str, reason: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.reason = reason


def invalid(message: str) -> FunctionError:
    """A parameter that is not right."""
    return FunctionError("InvalidParameterValueException", message)


def missing(message: str) -> FunctionError:
    """Something that does not exist."""
    return FunctionError("ResourceNotFoundException", message)


def conflict(message: str) -> FunctionError:
    """Something that exists already, or is in a state that does not allow it."""
    return FunctionError("ResourceConflictException", message)
