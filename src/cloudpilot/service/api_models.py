"""What our own API takes and gives, as types: requests are checked by them, and `/openapi.json` is made of them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cloudpilot.hosting.access import DEFAULT_PROJECT, DEFAULT_QUOTA
from cloudpilot.hosting.limits import DEFAULT_MEMORY_MB, DEFAULT_TIMEOUT, LONGEST_LIFE, MOST_PREPARED

NAME = "^[a-z0-9][a-z0-9._-]{0,62}$"
FUNCTION_NAME = "^[a-zA-Z0-9_-]{1,64}$"
"""As Lambda has them."""
_Text = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")]
_Seconds = Annotated[int, Field(ge=0, le=LONGEST_LIFE)]


class Taken(BaseModel):
    """Something that a request brings: what we do not know is refused, since it would not be done."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Asked(BaseModel):
    """A query string."""

    model_config = ConfigDict(extra="forbid")


class ErrorBody(BaseModel):
    """What was wrong."""

    code: str = Field(description="The kind of failure")
    message: str = Field(description="What was refused and why, in a sentence")
    field: str | None = Field(None, description="The field of the request that is wrong")
    remedy: str | None = Field(None, description="What to do about it")


class Error(BaseModel):
    """A refusal."""

    error: ErrorBody


class SandboxCreate(Taken):
    """A sandbox that shall be started."""

    template: Annotated[str, Field(pattern=NAME)] = "base"
    timeout: _Seconds = Field(DEFAULT_TIMEOUT, description="Seconds until it is ended")
    metadata: dict[_Text, _Text] = Field({}, max_length=64)
    env: dict[_Text, _Text] = Field({}, max_length=64, description="Environment of its commands")


class SandboxChange(Taken):
    """What shall change about a sandbox."""

    timeout: _Seconds = Field(description="Seconds from now until it is ended")


class Sandbox(BaseModel):
    """A sandbox that runs."""

    id: str
    project: str
    template: str
    metadata: dict[str, str]
    created: float = Field(description="Seconds since 1970")
    end_at: float = Field(description="When it is ended, in seconds since 1970")
    memory_mb: int
    cpus: float
    network: str
    state: str


class SandboxPage(BaseModel):
    """Some sandboxes."""

    sandboxes: list[Sandbox]
    next: str | None = Field(description="Give it as `after` for the next page")


class PageQuery(Asked):
    """Which part of a listing."""

    limit: int = Field(100, ge=1, le=1000)
    after: str | None = Field(None, max_length=128)


class CommandRun(Taken):
    """A command that shall run to its end."""

    args: list[_Text] = Field(min_length=1, max_length=1024, description="Program and arguments")
    env: dict[_Text, _Text] = Field({}, max_length=256)
    cwd: _Text | None = None
    user: _Text | None = Field(None, description="Name or UID[:GID]; root if none is given")
    stdin: str = Field("", max_length=1 << 19)
    timeout: float = Field(60.0, gt=0, le=3600, strict=False, description="Seconds after which it is killed")


class CommandResult(BaseModel):
    """How a command ended."""

    exit_code: int = Field(description="Its status; 128+n if signal n ended it, -1 if that is not known")
    stdout: str
    stderr: str
    truncated: bool = Field(description="Whether it wrote more than is kept")


class FileQuery(Asked):
    """Which file."""

    path: str = Field(min_length=1, max_length=4096)
    user: str | None = Field(None, max_length=64)


class Written(BaseModel):
    """A file that was written."""

    path: str
    size: int


class StorageUse(BaseModel):
    """What a sandbox moved from and to files of the host: volumes and its read-only root."""

    read_bytes: int
    written_bytes: int
    reads: int
    writes: int


class NetworkUse(BaseModel):
    """What a sandbox moved over connections that leave it; a piece of a stream counts as a packet."""

    received_bytes: int
    sent_bytes: int
    received_packets: int
    sent_packets: int


class Stats(BaseModel):
    """Figures of a sandbox."""

    time: float
    cpu_percent: float
    memory_bytes: int
    memory_limit_bytes: int
    processes: int
    storage: StorageUse
    network: NetworkUse


class LogLine(BaseModel):
    """A line of a sandbox's log."""

    time: float
    level: str
    message: str
    fields: dict[str, Any] = Field(description="What it is about, like `pid`, `source` and `stream`")


class Log(BaseModel):
    """A sandbox's log."""

    lines: list[LogLine]


class TemplateCreate(Taken):
    """What sandboxes shall start from."""

    name: Annotated[str, Field(pattern=NAME)]
    root: _Text | None = Field(None, description="Directory of the host to show as root")
    image: _Text | None = Field(None, description="Image of the host; without it and `root`, the host's programs are shown")
    start_command: _Text | None = Field(None, description="Shell command that runs on in each sandbox")
    ready_command: _Text | None = Field(None, description="Shell command that succeeds once the sandbox is ready")
    ready_timeout: float = Field(60.0, gt=0, le=600, strict=False)
    envs: dict[_Text, _Text] = Field({}, max_length=64)
    memory_mb: int = Field(DEFAULT_MEMORY_MB, ge=16, le=1 << 20)
    cpus: float | None = Field(None, ge=0.01, le=1024, strict=False)
    network: Literal["none", "host"] = "none"
    prepared: int = Field(0, ge=0, le=MOST_PREPARED, description="Sandboxes that wait, started in advance")
    user: str = Field("", max_length=64, description="Who commands run as where nothing is said; the image's user, or root")
    workdir: str = Field("", max_length=4096, description="Where they begin; the image's directory, or the user's home")


class Template(BaseModel):
    """What sandboxes start from."""

    name: str
    root: str | None
    image: str | None
    start_command: str | None
    ready_command: str | None
    ready_timeout: float
    envs: dict[str, str]
    memory_mb: int
    cpus: float | None
    network: str
    project: str | None = Field(description="Whose it is; none is everybody's")
    user: str
    workdir: str
    build_id: str | None = Field(description="The task that built it")
    created: float
    prepared: int
    note: str | None = Field(description="What one should know about it")


class Templates(BaseModel):
    """All templates."""

    templates: list[Template]


class BuildStep(Taken):
    """A step of a build."""

    kind: Literal["RUN", "ENV", "WORKDIR", "USER"] = Field(description="What Dockerfiles call it")
    args: list[_Text] = Field(
        min_length=1, max_length=256, description="A command and perhaps a user; names and values; a directory; a user"
    )


class BuildCreate(Taken):
    """A template that shall be built from steps."""

    name: Annotated[str, Field(pattern=NAME)]
    from_image: _Text | None = Field(None, description="Image of the host to begin with; `base` if neither is given")
    from_template: _Text | None = Field(None, description="Template to begin with")
    steps: list[BuildStep] = Field([], max_length=500)
    start_command: _Text | None = None
    ready_command: _Text | None = None
    memory_mb: int = Field(DEFAULT_MEMORY_MB, ge=16, le=1 << 20)
    cpus: float | None = Field(None, ge=0.01, le=1024, strict=False)
    again: bool = Field(False, description="Even if the same was built before")


class ImageConfig(BaseModel):
    """What an image says about how it is run."""

    entrypoint: list[str]
    command: list[str]
    environment: dict[str, str]
    workdir: str
    user: str
    exposed_ports: list[str]
    stop_signal: str
    labels: dict[str, str]


class Image(BaseModel):
    """An image of the host."""

    name: str
    digest: str
    size: int
    created: float
    config: ImageConfig


class Images(BaseModel):
    """All images."""

    images: list[Image]


class ImageCreate(Taken):
    """An image that shall be added from what lies on the host."""

    path: _Text = Field(description="An OCI layout, an archive by `docker save`, or with `kind` root a directory")
    kind: Literal["layout", "root", "debian"] = Field(
        "layout", description="`debian` makes `base` out of Debian packages; `path` is a mirror, or empty"
    )
    tag: _Text | None = Field(None, description="Which image of the layout")
    name: _Text | None = Field(None, description="What to call it here")


class ImageQuery(Asked):
    """Which image."""

    name: str = Field(min_length=1, max_length=255)


class TaskError(BaseModel):
    """Why a task failed."""

    code: str
    message: str
    field: str | None
    remedy: str | None


class Task(BaseModel):
    """A long operation."""

    id: str
    kind: str
    target: str
    project: str
    created: float
    state: Literal["running", "succeeded", "failed", "cancelled"]
    progress: float = Field(description="Which part of it is done, from 0 to 1")
    ended: float | None
    result: dict[str, Any] | None
    error: TaskError | None
    events: int = Field(description="How many events there are")


class TaskPage(BaseModel):
    """Some tasks, the newest first."""

    tasks: list[Task]
    next: str | None = Field(description="Give it as `after` for the next page")


class EventsQuery(Asked):
    """Which events of a task."""

    after: int = Field(0, ge=0, le=1 << 31, description="Number of the last event that is known")


class KeyCreate(Taken):
    """A key that shall be made."""

    name: str = Field(min_length=1, max_length=64)
    role: Literal["read-only", "user", "admin"] = "user"
    project: Annotated[str, Field(pattern=NAME)] = DEFAULT_PROJECT


class Key(BaseModel):
    """An API key, without what opens anything."""

    id: str
    name: str
    role: str
    project: str
    shown: str = Field(description="Its first characters")
    created: float


class NewKey(Key):
    """A key that was just made."""

    key: str = Field(description="What the client sends; it is told this once")


class Credentials(BaseModel):
    """A key in the form that AWS's clients take."""

    access_key_id: str
    secret_access_key: str


class Keys(BaseModel):
    """All keys."""

    keys: list[Key]


MostInstances = Annotated[int, Field(ge=0, le=100_000)]
MostMemory = Annotated[int, Field(ge=0, le=1 << 40)]
MostCpus = Annotated[int, Field(ge=0, le=1 << 20)]


class ProjectCreate(Taken):
    """A project that shall be made, and what it may have at a time; none is no limit."""

    name: Annotated[str, Field(pattern=NAME)]
    most_sandboxes: MostInstances | None = Field(DEFAULT_QUOTA["most_sandboxes"], description="Instances of functions count, too")
    most_memory_mb: MostMemory | None = Field(DEFAULT_QUOTA["most_memory_mb"], description="MiB promised to them")
    most_cpus: MostCpus | None = Field(DEFAULT_QUOTA["most_cpus"], description="CPUs promised to them")
    most_functions: MostInstances | None = Field(DEFAULT_QUOTA["most_functions"])


class ProjectChange(Taken):
    """What shall change about a project; what is not named stays."""

    most_sandboxes: MostInstances | None = None
    most_memory_mb: MostMemory | None = None
    most_cpus: MostCpus | None = None
    most_functions: MostInstances | None = None


class Project(BaseModel):
    """A project, and what it may have at a time; none is no limit."""

    name: str
    most_sandboxes: int | None
    most_memory_mb: int | None
    most_cpus: int | None
    most_functions: int | None
    created: float


class Projects(BaseModel):
    """All projects."""

    projects: list[Project]


class AuditEntry(BaseModel):
    """Who did what."""

    id: str
    time: float
    key: str
    project: str | None
    action: str
    target: str
    details: dict[str, Any]


class Audit(BaseModel):
    """Part of the audit log, the newest entry first."""

    entries: list[AuditEntry]
    next: str | None = Field(description="Give it as `before` for older ones")


class AuditQuery(Asked):
    """Which part of the audit log."""

    limit: int = Field(100, ge=1, le=1000)
    before: str | None = Field(None, max_length=64)


class Service(BaseModel):
    """What the service is."""

    version: str
    sandboxes: int
    role: str
    project: str
