"""What a function is, as data: the store keeps these, and everything else reads them."""

from __future__ import annotations

import time
import uuid
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

REGION = "zz-local-1"
"""Has the form of a region's name, which AWS's clients and tools check, and is none of AWS's."""
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
        layers: ARN, digest and size of layers' versions, in the order in which they are put below `/opt`.
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
    layers: list[dict[str, Any]] = field(default_factory=list)
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
class Alias(Stored):
    """A name for a version, that can be moved to another.

    Attributes:
        name: The name.
        version: What it names.
        description: In its owner's words.
        weights: Other versions, and which part of the calls each of them gets.
        revision: Changes with every change.
    """

    name: str
    version: str
    description: str = ""
    weights: dict[str, float] = field(default_factory=dict)
    revision: str = field(default_factory=lambda: str(uuid.uuid4()))


@dataclass(frozen=True, slots=True)
class UrlConfig(Stored):
    """An address of a function.

    Attributes:
        id: The part of the address that names it.
        project: Whose function.
        function: Its name.
        qualifier: The alias that is called; none is `$LATEST`.
        auth: `NONE`: whoever knows the address may call; `AWS_IAM`: whoever has a key of the project.
        cors: What browsers are told of other origins; none is nothing.
        stream: Whether answers are handed on as they come.
        created: When it was made.
        modified: When it was changed.
    """

    id: str
    project: str
    function: str
    qualifier: str | None
    auth: str
    cors: dict[str, Any] | None = None
    stream: bool = False
    created: float = field(default_factory=time.time)
    modified: float = field(default_factory=time.time)

    @property
    def arn(self) -> str:
        """The function's name as AWS has it."""
        return arn_of(self.function, self.qualifier)


@dataclass(frozen=True, slots=True)
class Layer(Stored):
    """One version of a layer: files that functions see below `/opt`."""

    name: str
    project: str
    version: int
    digest: str
    code_size: int
    description: str = ""
    license: str | None = None
    runtimes: list[str] | None = None
    architectures: list[str] | None = None
    created: float = field(default_factory=time.time)

    @property
    def layer_arn(self) -> str:
        """The layer's name as AWS has it."""
        return f"arn:aws:lambda:{REGION}:{ACCOUNT}:layer:{self.name}"

    @property
    def arn(self) -> str:
        """This version's name as AWS has it."""
        return f"{self.layer_arn}:{self.version}"


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
