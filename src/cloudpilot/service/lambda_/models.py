"""What the API takes, as botocore's model of it has it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from cloudpilot.service.lambda_.checking import Given

LONGEST_TIMEOUT = 900
LARGEST_MEMORY_MB = 10240
LARGEST_EPHEMERAL_MB = 10240
_Description = Annotated[str | None, Field(alias="Description", max_length=256)]
_Revision = Annotated[str | None, Field(alias="RevisionId")]
_Arn = Annotated[str, Field(max_length=350)]


_Variable = Annotated[str, Field(pattern=r"^[a-zA-Z][a-zA-Z0-9_]+$")]


class Variables(Given):
    """Variables of a function's program."""

    variables: Annotated[dict[_Variable, str], Field(alias="Variables", default_factory=dict)]


class Code(Given):
    """Where code comes from."""

    zip_file: Annotated[str | None, Field(alias="ZipFile")] = None
    image: Annotated[str | None, Field(alias="ImageUri")] = None
    bucket: Annotated[str | None, Field(alias="S3Bucket")] = None
    architectures: Annotated[list[Literal["x86_64", "arm64"]] | None, Field(alias="Architectures", min_length=1, max_length=1)] = None


class CodeUpdate(Code):
    """New code of a function."""

    publish: Annotated[bool, Field(alias="Publish")] = False
    dry_run: Annotated[bool, Field(alias="DryRun")] = False
    revision: _Revision = None


class DeadLetters(Given):
    """Who gets calls that failed for good."""

    target: Annotated[str | None, Field(alias="TargetArn", max_length=350)] = None


class Storage(Given):
    """Room below `/tmp`."""

    size: Annotated[int, Field(alias="Size", ge=512, le=LARGEST_EPHEMERAL_MB)]


class Tracing(Given):
    """Whether calls are traced."""

    mode: Annotated[Literal["Active", "PassThrough"], Field(alias="Mode")]


class Logging(Given):
    """Where the log goes."""

    format: Annotated[Literal["JSON", "Text"] | None, Field(alias="LogFormat")] = None
    application: Annotated[Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"] | None, Field(alias="ApplicationLogLevel")] = None
    system: Annotated[Literal["DEBUG", "INFO", "WARN"] | None, Field(alias="SystemLogLevel")] = None
    group: Annotated[str | None, Field(alias="LogGroup", min_length=1, max_length=512, pattern=r"^[\.\-_/#A-Za-z0-9]+$")] = None


class Image(Given):
    """What overrides an image's own settings."""

    entry_point: Annotated[list[str] | None, Field(alias="EntryPoint", max_length=1500)] = None
    command: Annotated[list[str] | None, Field(alias="Command", max_length=1500)] = None
    directory: Annotated[str | None, Field(alias="WorkingDirectory", max_length=1000)] = None


class Configuration(Given):
    """Everything of a function but its code."""

    handler: Annotated[str | None, Field(alias="Handler", max_length=128, pattern=r"^\S+$")] = None
    runtime: Annotated[str | None, Field(alias="Runtime")] = None
    role: Annotated[str | None, Field(alias="Role", max_length=10000)] = None
    description: _Description = None
    timeout: Annotated[int | None, Field(alias="Timeout", ge=1, le=LONGEST_TIMEOUT)] = None
    memory_mb: Annotated[int | None, Field(alias="MemorySize", ge=128, le=LARGEST_MEMORY_MB)] = None
    environment: Annotated[Variables | None, Field(alias="Environment")] = None
    layers: Annotated[list[Annotated[str, Field(min_length=1, max_length=2048)]] | None, Field(alias="Layers")] = None
    dead_letters: Annotated[DeadLetters | None, Field(alias="DeadLetterConfig")] = None
    storage: Annotated[Storage | None, Field(alias="EphemeralStorage")] = None
    tracing: Annotated[Tracing | None, Field(alias="TracingConfig")] = None
    logging: Annotated[Logging | None, Field(alias="LoggingConfig")] = None
    image: Annotated[Image | None, Field(alias="ImageConfig")] = None
    revision: _Revision = None
    # What there is nothing for here: refused, unless it is the same as nothing.
    network: Annotated[dict[str, Any] | None, Field(alias="VpcConfig")] = None
    file_systems: Annotated[list[Any] | None, Field(alias="FileSystemConfigs")] = None
    key: Annotated[str | None, Field(alias="KMSKeyArn")] = None
    snap_start: Annotated[dict[str, Any] | None, Field(alias="SnapStart")] = None
    tenancy: Annotated[dict[str, Any] | None, Field(alias="TenancyConfig")] = None
    capacity: Annotated[dict[str, Any] | None, Field(alias="CapacityProviderConfig")] = None
    durable: Annotated[dict[str, Any] | None, Field(alias="DurableConfig")] = None
    accelerator: Annotated[dict[str, Any] | None, Field(alias="AcceleratorConfig")] = None


class Creation(Configuration):
    """A new function."""

    name: Annotated[str, Field(alias="FunctionName", min_length=1, max_length=140)]
    code: Annotated[Code, Field(alias="Code")]
    role: Annotated[str, Field(alias="Role", max_length=10000)]
    package: Annotated[Literal["Zip", "Image"], Field(alias="PackageType")] = "Zip"
    publish: Annotated[bool, Field(alias="Publish")] = False
    tags: Annotated[dict[str, str], Field(alias="Tags", default_factory=dict)]
    architectures: Annotated[list[Literal["x86_64", "arm64"]] | None, Field(alias="Architectures", min_length=1, max_length=1)] = None
    signing: Annotated[str | None, Field(alias="CodeSigningConfigArn")] = None


class Publication(Given):
    """A new version."""

    code: Annotated[str | None, Field(alias="CodeSha256")] = None
    description: _Description = None
    revision: _Revision = None


class Routing(Given):
    """Other versions that an alias leads to."""

    weights: Annotated[
        dict[Annotated[str, Field(pattern=r"^([0-9]+|\$LATEST)$")], Annotated[float, Field(ge=0, le=1)]] | None,
        Field(alias="AdditionalVersionWeights"),
    ] = None


class AliasChange(Given):
    """What is new of an alias."""

    version: Annotated[str | None, Field(alias="FunctionVersion", min_length=1, max_length=1024, pattern=r"^(\$LATEST|[0-9]+)$")] = None
    description: _Description = None
    routing: Annotated[Routing | None, Field(alias="RoutingConfig")] = None
    revision: _Revision = None


class AliasCreation(AliasChange):
    """A new alias."""

    # A name of digits only would be a version.
    name: Annotated[str, Field(alias="Name", min_length=1, max_length=128, pattern=r"^[0-9]*[a-zA-Z-_][a-zA-Z0-9-_]*$")]
    version: Annotated[str, Field(alias="FunctionVersion", min_length=1, max_length=1024, pattern=r"^(\$LATEST|[0-9]+)$")]


class Reservation(Given):
    """How many calls may be under way at a time."""

    limit: Annotated[int, Field(alias="ReservedConcurrentExecutions", ge=0)]


class Provision(Given):
    """How many instances are kept ready."""

    instances: Annotated[int, Field(alias="ProvisionedConcurrentExecutions", ge=1)]


class Destination(Given):
    """Who is told."""

    arn: Annotated[_Arn | None, Field(alias="Destination")] = None


class Destinations(Given):
    """Who is told of calls that nobody waited for."""

    success: Annotated[Destination | None, Field(alias="OnSuccess")] = None
    failure: Annotated[Destination | None, Field(alias="OnFailure")] = None


class EventChange(Given):
    """What becomes of calls that nobody waits for."""

    retries: Annotated[int | None, Field(alias="MaximumRetryAttempts", ge=0, le=2)] = None
    most_age: Annotated[int | None, Field(alias="MaximumEventAgeInSeconds", ge=60, le=21600)] = None
    destinations: Annotated[Destinations | None, Field(alias="DestinationConfig")] = None


class Cors(Given):
    """What browsers are told of other origins."""

    credentials: Annotated[bool | None, Field(alias="AllowCredentials")] = None
    headers: Annotated[list[Annotated[str, Field(max_length=1024)]] | None, Field(alias="AllowHeaders", max_length=100)] = None
    methods: Annotated[list[Annotated[str, Field(max_length=6)]] | None, Field(alias="AllowMethods", max_length=6)] = None
    origins: Annotated[list[Annotated[str, Field(min_length=1, max_length=253)]] | None, Field(alias="AllowOrigins", max_length=100)] = None
    exposed: Annotated[list[Annotated[str, Field(max_length=1024)]] | None, Field(alias="ExposeHeaders", max_length=100)] = None
    age: Annotated[int | None, Field(alias="MaxAge", ge=0, le=86400)] = None


class UrlChange(Given):
    """What is new of a function's address."""

    auth: Annotated[Literal["NONE", "AWS_IAM"] | None, Field(alias="AuthType")] = None
    cors: Annotated[Cors | None, Field(alias="Cors")] = None
    mode: Annotated[Literal["BUFFERED", "RESPONSE_STREAM"] | None, Field(alias="InvokeMode")] = None


class UrlCreation(UrlChange):
    """A new address."""

    auth: Annotated[Literal["NONE", "AWS_IAM"], Field(alias="AuthType")]


class Permission(Given):
    """Who may do what, in a sentence of a policy."""

    id: Annotated[str, Field(alias="StatementId", min_length=1, max_length=100, pattern=r"^[a-zA-Z0-9-_]+$")]
    action: Annotated[str, Field(alias="Action", max_length=256, pattern=r"^(lambda:[*]|lambda:[a-zA-Z]+|[*])$")]
    principal: Annotated[str, Field(alias="Principal", max_length=2048, pattern=r"^\S+$")]
    source: Annotated[str | None, Field(alias="SourceArn", max_length=10000)] = None
    account: Annotated[str | None, Field(alias="SourceAccount", pattern=r"^\d{12}$")] = None
    token: Annotated[str | None, Field(alias="EventSourceToken", max_length=256, pattern=r"^[a-zA-Z0-9._\-]+$")] = None
    url_auth: Annotated[Literal["NONE", "AWS_IAM"] | None, Field(alias="FunctionUrlAuthType")] = None
    via_url: Annotated[bool | None, Field(alias="InvokedViaFunctionUrl")] = None
    organization: Annotated[str | None, Field(alias="PrincipalOrgID", min_length=12, max_length=34, pattern=r"^o-[a-z0-9]{10,32}$")] = None
    revision: _Revision = None


class LayerPermission(Given):
    """Who may use a layer."""

    id: Annotated[str, Field(alias="StatementId", min_length=1, max_length=100, pattern=r"^[a-zA-Z0-9-_]+$")]
    action: Annotated[Literal["lambda:GetLayerVersion"], Field(alias="Action")]
    principal: Annotated[str, Field(alias="Principal", pattern=r"^(\d{12}|\*|arn:(aws[a-zA-Z-]*):iam::\d{12}:root)$")]
    organization: Annotated[str | None, Field(alias="OrganizationId", max_length=34, pattern=r"^o-[a-z0-9]{10,32}$")] = None


class LayerCreation(Given):
    """A new version of a layer."""

    content: Annotated[Code, Field(alias="Content")]
    description: _Description = None
    license: Annotated[str | None, Field(alias="LicenseInfo", max_length=512)] = None
    runtimes: Annotated[list[str] | None, Field(alias="CompatibleRuntimes", max_length=15)] = None
    architectures: Annotated[list[Literal["x86_64", "arm64"]] | None, Field(alias="CompatibleArchitectures", max_length=2)] = None


class Tagging(Given):
    """New tags."""

    tags: Annotated[dict[str, str], Field(alias="Tags")]


class Recursion(Given):
    """What happens when functions call each other in a circle."""

    loop: Annotated[Literal["Allow", "Terminate"], Field(alias="RecursiveLoop")]


class RuntimeManagement(Given):
    """When the runtime is renewed."""

    update: Annotated[Literal["Auto", "Manual", "FunctionUpdate"], Field(alias="UpdateRuntimeOn")]
    version: Annotated[str | None, Field(alias="RuntimeVersionArn", max_length=2048)] = None


class ResourcePolicy(Given):
    """A whole policy."""

    policy: Annotated[str, Field(alias="Policy", min_length=1, max_length=20480)]
    revision: _Revision = None
