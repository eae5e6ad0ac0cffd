"""Failures as all APIs of the service know them: a kind, a sentence, the field that is wrong, the remedy."""

from __future__ import annotations

from enum import Enum

from cloudpilot import errors
from cloudpilot.store import StoreError


class Kind(Enum):
    """What went wrong. The value is the name in answers, and what HTTP calls it."""

    INVALID = ("invalid_argument", 400)
    UNAUTHENTICATED = ("unauthenticated", 401)
    FORBIDDEN = ("permission_denied", 403)
    NOT_FOUND = ("not_found", 404)
    EXISTS = ("already_exists", 409)
    CONFLICT = ("failed_precondition", 409)
    TOO_LARGE = ("too_large", 413)
    LIMIT = ("resource_exhausted", 429)
    INTERNAL = ("internal", 500)
    NOT_SUPPORTED = ("unimplemented", 501)
    UNAVAILABLE = ("unavailable", 503)
    TIMEOUT = ("deadline_exceeded", 504)
    NO_SPACE = ("no_space", 507)

    @property
    def code(self) -> str:
        """Its name in answers."""
        return self.value[0]

    @property
    def status(self) -> int:
        """What HTTP calls it."""
        return self.value[1]


class Failure(Exception):  # noqa: N818 -- it is an answer rather than a fault of ours
    """A request that is refused.

    Attributes:
        kind: What went wrong.
        message: In a sentence.
        field: The field of the request that is wrong, if it is one.
        remedy: What to do about it.
    """

    def __init__(self, kind: Kind, message: str, *, field: str | None = None, remedy: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.field = field
        self.remedy = remedy

    def sentence(self) -> str:
        """Everything in one line, for answers that have room for a line only."""
        text = self.message if self.field is None else f"{self.field}: {self.message}"
        return text if self.remedy is None else f"{text} ({self.remedy})"


_KINDS: list[tuple[type[errors.SandboxException], Kind]] = [
    (errors.TimeoutException, Kind.TIMEOUT),
    (errors.SandboxEndedException, Kind.UNAVAILABLE),
    (errors.NotFoundException, Kind.NOT_FOUND),
    (errors.InvalidArgumentException, Kind.INVALID),
    (errors.NotEnoughSpaceException, Kind.NO_SPACE),
    (errors.PermissionDeniedException, Kind.FORBIDDEN),
    (errors.FileExistsException, Kind.EXISTS),
    (errors.LimitException, Kind.LIMIT),
    (errors.NotSupportedException, Kind.NOT_SUPPORTED),
]


_REMEDIES = {
    Kind.NOT_FOUND: "look at what there is in the sandbox",
    Kind.INVALID: "look at what there is in the sandbox",
    Kind.FORBIDDEN: "name a user that may, like `root`",
    Kind.EXISTS: "choose another name, or remove what is there",
    Kind.NO_SPACE: "remove something, or use a template with more memory",
    Kind.LIMIT: "try again later",
    Kind.TIMEOUT: "give more time, or try again",
    Kind.UNAVAILABLE: "start another sandbox",
}
"""Where the engine says none."""


def of(error: Exception) -> Failure | None:
    """What an exception means to the client; none is a fault of ours."""
    if isinstance(error, Failure):
        return error
    if isinstance(error, errors.SandboxException):
        kind = next((kind for cause, kind in _KINDS if isinstance(error, cause)), Kind.INTERNAL)
        return Failure(kind, error.message, remedy=error.hint or _REMEDIES.get(kind))
    if isinstance(error, StoreError):
        return Failure(Kind.UNAVAILABLE, error.message, remedy=error.hint)
    return None


KNOWN: tuple[type[Exception], ...] = (Failure, errors.SandboxException, StoreError)
"""Exceptions that `of` understands."""
