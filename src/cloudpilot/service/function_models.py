"""What our own API says of functions."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cloudpilot.service.api_models import FUNCTION_NAME

MOST_CALLS_PER_INSTANCE = 1000
"""Requests that an instance may declare to serve at the same time, as with Cloud Run."""
_RUNTIME = r"^(python3(\.\d+)?|nodejs(\d+\.x)?|provided(\.al2|\.al2023)?)$"
_QUALIFIER = r"^(\$LATEST|[a-zA-Z0-9_-]+)$"
_Word = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class FunctionDeploy(_Strict):
    """A function to be made, or changed."""

    name: Annotated[str, Field(pattern=FUNCTION_NAME, description="Its name in the project")]
    contract: Annotated[
        Literal["events", "http"], Field(description="`events`: a handler that is called; `http`: a program that serves HTTP on $PORT")
    ] = "events"
    code: Annotated[str | None, Field(description="A zip archive in base64; without one, the function keeps the code that it has")] = None
    image: Annotated[str | None, Field(max_length=512, description="An image of the service, instead of code")] = None
    runtime: Annotated[str, Field(pattern=_RUNTIME, description="What runs it")] = "python3"
    handler: Annotated[str, Field(max_length=128, pattern=r"^\S*$", description="`MODULE.NAME`, for the contract `events`")] = ""
    command: Annotated[
        list[_Word] | None,
        Field(max_length=1500, description="The program, for the contract `http`; without one, the code's `functions-framework`"),
    ] = None
    target: Annotated[str | None, Field(max_length=128, pattern=r"^\S+$", description="FUNCTION_TARGET, for `functions-framework`")] = None
    signature: Annotated[
        Literal["http", "event", "cloudevent", "typed"] | None, Field(description="FUNCTION_SIGNATURE_TYPE, for `functions-framework`")
    ] = None
    env: Annotated[dict[Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$")], _Word], Field(default_factory=dict)]
    memory_mb: Annotated[int, Field(ge=128, le=10240, description="Memory of an instance, MiB")] = 128
    timeout: Annotated[int, Field(ge=1, le=900, description="Seconds that a call may take")] = 60
    concurrency: Annotated[
        int, Field(ge=1, le=MOST_CALLS_PER_INSTANCE, description="Requests that an instance serves at a time, for the contract `http`")
    ] = 1
    public: Annotated[bool, Field(description="Whether whoever knows the address of a function of the contract `http` may call it")] = False


class Function(BaseModel):
    """A function."""

    name: str
    contract: str
    version: str
    runtime: str
    handler: str
    image: str | None
    code_sha256: str
    code_size: int
    memory_mb: int
    timeout: int
    concurrency: int
    modified: float
    url: Annotated[str | None, Field(description="Its address, if it has one")]
    path: Annotated[str | None, Field(description="The same as a path of the service, where names below its domain lead nowhere")]


class Functions(BaseModel):
    """Functions."""

    functions: list[Function]


class InvokeQuery(_Strict):
    """How a function is called."""

    version: Annotated[str | None, Field(max_length=128, pattern=_QUALIFIER, description="A version or an alias")] = None


class Invocation(BaseModel):
    """What became of a call."""

    error: Annotated[str | None, Field(description="What failed, if the function did")]
    result: Annotated[Any, Field(description="What the function answered; as text, if it was no JSON")]
    version: str
    log: Annotated[str, Field(description="The end of what it wrote")]


class LogQuery(BaseModel):
    """Which part of a log."""

    model_config = ConfigDict(extra="forbid")

    after: Annotated[int | None, Field(ge=0, le=1 << 62, description="Position, as `next` of another answer; none is the newest")] = None
    limit: Annotated[int, Field(ge=1, le=10_000)] = 1000
    wait: Annotated[float, Field(ge=0, le=30, description="Seconds to wait for something new, if there is nothing")] = 0


class FunctionLogEntry(BaseModel):
    """Something that a function wrote."""

    time: float
    version: str
    text: str


class FunctionLog(BaseModel):
    """A part of a function's log."""

    entries: list[FunctionLogEntry]
    next: Annotated[int, Field(description="Position behind it")]
