"""Everything that can go wrong, as exceptions. The names are E2B's where the meaning is the same.

::

    SandboxException                     anything that concerns a sandbox
    ├── TimeoutException                 a deadline passed: a command's, a request's, the sandbox's own
    ├── SandboxEndedException            the sandbox is gone: ended, killed, crashed
    ├── NotFoundException                no such sandbox, file, process or program
    ├── InvalidArgumentException         malformed or contradictory
    ├── NotEnoughSpaceException          the disk or the memory behind a file is full
    ├── PermissionDeniedException        this user may not do that inside
    ├── FileExistsException              there is something of that name already
    ├── LimitException                   one of our limits, or one that you set
    ├── NotSupportedException            the wall or the host cannot do that
    ├── FunctionException                a function of an app failed with an exception that is not one of Python's own
    └── CommandExitException             a command ended with a status other than 0
"""

from __future__ import annotations

import errno as numbers

# The real one would import `typing`, a good part of the start of `pilot run`.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class SandboxException(Exception):  # noqa: N818 -- E2B's names
    """Anything that went wrong with a sandbox.

    Attributes:
        message: What was refused and why, in a sentence.
        hint: What to do about it, where there is something to do.
        code: The kind of failure as the control protocol has it, if it came from there.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message if hint is None else f"{message} ({hint})")
        self.message = message
        self.hint = hint
        self.code: str | None = None


class TimeoutException(SandboxException):
    """A deadline passed: a command's, a request's, or the sandbox's own."""


class SandboxEndedException(SandboxException):
    """The sandbox is gone."""


class NotFoundException(SandboxException):
    """There is no such sandbox, file, process or program."""


class InvalidArgumentException(SandboxException):
    """Malformed or contradictory."""


class NotEnoughSpaceException(SandboxException):
    """The disk or the memory behind a file is full."""


class PermissionDeniedException(SandboxException):
    """The user that was to do it inside may not."""


class FileExistsException(SandboxException):
    """There is something of that name already, or a directory is not empty."""


class LimitException(SandboxException):
    """One of our limits, or one that was set for the sandbox."""


class NotSupportedException(SandboxException):
    """The wall or the host cannot do that."""


class FunctionException(SandboxException):
    """A function of an `App` failed where it ran. Python's own exceptions come back as what they are; this stands for all others.

    Attributes:
        kind: The name of the exception's class there, or of what went wrong, like `Runtime.ExitError`.
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind

    def __reduce__(self) -> tuple[Any, ...]:
        """Exceptions are pickled by their arguments, and these differ from the message."""
        return type(self), (self.kind, self.message.removeprefix(f"{self.kind}: "))


class CommandExitException(SandboxException):
    """A command ended with a status other than 0.

    Attributes:
        stdout: What it wrote to standard output.
        stderr: What it wrote to standard error.
        exit_code: Its status; 128+n if signal n ended it.
        error: The signal in words, if one ended it.
    """

    def __init__(self, stdout: str, stderr: str, exit_code: int, error: str | None = None) -> None:
        detail = error or stderr.strip().rpartition("\n")[2]
        super().__init__(f"Command exited with code {exit_code}" + (f": {detail}" if detail else ""))
        self.stdout = stdout
        self.stderr = stderr
        self.exit_code = exit_code
        self.error = error

    def __reduce__(self) -> tuple[Any, ...]:
        """Exceptions are pickled by their arguments, and these differ from the message."""
        return type(self), (self.stdout, self.stderr, self.exit_code, self.error)


_BY_CODE: dict[str, type[SandboxException]] = {
    "not_found": NotFoundException,
    "not_a_directory": InvalidArgumentException,
    "is_a_directory": InvalidArgumentException,
    "exists": FileExistsException,
    "permission_denied": PermissionDeniedException,
    "invalid_argument": InvalidArgumentException,
    "not_executable": InvalidArgumentException,
    "limit": LimitException,
    "ended": SandboxEndedException,
}


def from_failure(failure: dict[str, Any]) -> SandboxException:
    """The exception for a failure as the sandbox's control protocol reports it."""
    kind = _BY_CODE.get(str(failure.get("code")), SandboxException)
    if failure.get("errno") in (numbers.ENOSPC, numbers.EDQUOT):
        kind = NotEnoughSpaceException
    error = kind(str(failure.get("message", "The sandbox failed without a reason")), failure.get("hint"))
    error.code = failure.get("code")
    return error
