"""Cloudpilot runs untrusted Linux programs behind a user-space kernel of its own.

    >>> from cloudpilot import Sandbox
    >>> with Sandbox.create() as sandbox:
    ...     sandbox.commands.run("python3 -c 'print(6*7)'").stdout

The names are E2B's, so that code moves over where the meaning is the same. Names are loaded when they are first used.
"""

__version__ = "0.1.0"

# What type checkers take for true; the real one would import `typing`, which costs more than everything here.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from cloudpilot.app import (
        App as App,
    )
    from cloudpilot.app import (
        Function as Function,
    )
    from cloudpilot.app import (
        FunctionCall as FunctionCall,
    )
    from cloudpilot.async_sandbox import (
        AsyncCommandHandle as AsyncCommandHandle,
    )
    from cloudpilot.async_sandbox import (
        AsyncSandbox as AsyncSandbox,
    )
    from cloudpilot.async_sandbox import (
        AsyncWatchHandle as AsyncWatchHandle,
    )
    from cloudpilot.errors import (
        CommandExitException as CommandExitException,
    )
    from cloudpilot.errors import (
        FileExistsException as FileExistsException,
    )
    from cloudpilot.errors import (
        FunctionException as FunctionException,
    )
    from cloudpilot.errors import (
        InvalidArgumentException as InvalidArgumentException,
    )
    from cloudpilot.errors import (
        LimitException as LimitException,
    )
    from cloudpilot.errors import (
        NotEnoughSpaceException as NotEnoughSpaceException,
    )
    from cloudpilot.errors import (
        NotFoundException as NotFoundException,
    )
    from cloudpilot.errors import (
        NotSupportedException as NotSupportedException,
    )
    from cloudpilot.errors import (
        PermissionDeniedException as PermissionDeniedException,
    )
    from cloudpilot.errors import (
        SandboxEndedException as SandboxEndedException,
    )
    from cloudpilot.errors import (
        SandboxException as SandboxException,
    )
    from cloudpilot.errors import (
        TimeoutException as TimeoutException,
    )
    from cloudpilot.pool import (
        AsyncPool as AsyncPool,
    )
    from cloudpilot.pool import (
        Pool as Pool,
    )
    from cloudpilot.sandbox import (
        CommandHandle as CommandHandle,
    )
    from cloudpilot.sandbox import (
        Sandbox as Sandbox,
    )
    from cloudpilot.sandbox import (
        WatchHandle as WatchHandle,
    )
    from cloudpilot.types import (
        CommandResult as CommandResult,
    )
    from cloudpilot.types import (
        EntryInfo as EntryInfo,
    )
    from cloudpilot.types import (
        FilesystemEvent as FilesystemEvent,
    )
    from cloudpilot.types import (
        FilesystemEventType as FilesystemEventType,
    )
    from cloudpilot.types import (
        FileType as FileType,
    )
    from cloudpilot.types import (
        ProcessInfo as ProcessInfo,
    )
    from cloudpilot.types import (
        PtySize as PtySize,
    )
    from cloudpilot.types import (
        SandboxInfo as SandboxInfo,
    )
    from cloudpilot.types import (
        SandboxMetrics as SandboxMetrics,
    )
    from cloudpilot.types import (
        SandboxState as SandboxState,
    )
    from cloudpilot.types import (
        WriteEntry as WriteEntry,
    )
    from cloudpilot.types import (
        WriteInfo as WriteInfo,
    )

_MODULES = {
    "app": ("App", "Function", "FunctionCall"),
    "async_sandbox": ("AsyncCommandHandle", "AsyncSandbox", "AsyncWatchHandle"),
    "errors": (
        "CommandExitException",
        "FileExistsException",
        "FunctionException",
        "InvalidArgumentException",
        "LimitException",
        "NotEnoughSpaceException",
        "NotFoundException",
        "NotSupportedException",
        "PermissionDeniedException",
        "SandboxEndedException",
        "SandboxException",
        "TimeoutException",
    ),
    "pool": ("AsyncPool", "Pool"),
    "sandbox": ("CommandHandle", "Sandbox", "WatchHandle"),
    "types": (
        "CommandResult",
        "EntryInfo",
        "FileType",
        "FilesystemEvent",
        "FilesystemEventType",
        "ProcessInfo",
        "PtySize",
        "SandboxInfo",
        "SandboxMetrics",
        "SandboxState",
        "WriteEntry",
        "WriteInfo",
    ),
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}

__all__ = ["__version__", *_HOMES]  # noqa: PLE0604 -- all are strings


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module `cloudpilot` has no attribute `{name}`")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"cloudpilot.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
