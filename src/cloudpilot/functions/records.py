"""What a function is, as data: the store keeps these, and everything else reads them."""

from __future__ import annotations

import time
import uuid
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

REGION = "local"
ACCOUNT = "000000000000"
LATEST = "$LATEST"
"""The version that can be changed."""


class Stored:
    """What all records share: a form in the store, which may have been written by an earlier release that knew fewer fields."""

    __slots__ = ()

    def as_value(self) -> dict[str, Any]:
        """What the store keeps."""
        return asdict(self)  # type: ignore[call-overload,no-any-return]

    @classmethod
    def from_value(cls, value: dict[str, Any]) -> Self:
        """The record of what the store kept."""
        known = {each.name for each in fields(cls)}  # type: ignore[arg-type]
        return cls(**{name: each for name, each in value.items() if name in known})


@dataclass(frozen=True, slots=True)
class Function(Stored):
    """One version of a function.

    Attributes:
        name: Its name in its project.
        project: Whose it is.
        version: `$LATEST`, which can be changed, or the number of a copy that cannot.
        contract: How calls reach the program: `events` is Lambda's runtime interface, `http` is a server on `$PORT`.
        package: `Zip`, or `Image`.
        runtime: What runs the handler; nothing for images.
        handler: What the runtime calls.
        role: AWS's clients must name one; it means nothing here.
        digest: Hash of the code, or of the image's manifest.
        code_size: Bytes of the archive.
        image: Name of the image.
        image_config: What overrides the image's own entry point, command and directory.
        timeout: Seconds that a call may take.
        memory_mb: Memory of an instance.
        ephemeral_mb: Room below `/tmp`.
        env: Variables of the program.
        layers: Layers' versions, as `ARN`, in the order in which they are put below `/opt`.
        calls_per_instance: Calls that an instance serves at the same time.
        dead_letters: Function that gets asynchronous calls that failed for good.
        options: What clients set and get back, and what has no effect here.
        revision: Changes with every change.
        modified: When it was changed.
    """

    name: str
    project: str
    runtime: str
    handler: str
    role: str
    digest: str
    code_size: int
    version: str = LATEST
    contract: str = "events"
    package: str = "Zip"
    image: str | None = None
    image_config: dict[str, Any] = field(default_factory=dict)
    description: str = ""
    timeout: int = 3
    memory_mb: int = 128
    ephemeral_mb: int = 512
    env: dict[str, str] = field(default_factory=dict)
    layers: list[str] = field(default_factory=list)
    calls_per_instance: int = 1
    dead_letters: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    revision: str = field(default_factory=lambda: str(uuid.uuid4()))
    modified: float = field(default_factory=time.time)

    @property
    def arn(self) -> str:
        """Its name as AWS has it, without a version."""
        return arn_of(self.name)

    @property
    def qualified_arn(self) -> str:
        """Its name as AWS has it, with its version."""
        return f"{self.arn}:{self.version}"


@dataclass(frozen=True, slots=True)
class EventConfig(Stored):
    """What becomes of calls that nobody waits for.

    Attributes:
        retries: How often a call that failed is tried again.
        most_age: Seconds after which a call is given up.
        on_success: ARN of the function that is told of a call that succeeded.
        on_failure: ARN of the function that is told of a call that failed for good.
        modified: When it was changed.
    """

    retries: int = 2
    most_age: int = 6 * 3600
    on_success: str | None = None
    on_failure: str | None = None
    modified: float = field(default_factory=time.time)


def arn_of(name: str, qualifier: str | None = None) -> str:
    """A function's name as AWS has it."""
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{name}"
    return arn if qualifier is None else f"{arn}:{qualifier}"
