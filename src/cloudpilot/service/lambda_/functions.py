"""Functions: created, looked at, changed, removed."""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from starlette.responses import Response

from cloudpilot.errors import SandboxException
from cloudpilot.functions.code import LARGEST_UNPACKED, LARGEST_ZIP
from cloudpilot.functions.errors import FunctionError, conflict, invalid
from cloudpilot.functions.launch import image_name
from cloudpilot.functions.records import LATEST, Function
from cloudpilot.functions.registry import check_revision
from cloudpilot.service.http import reply
from cloudpilot.service.lambda_ import models, settings
from cloudpilot.service.lambda_.checking import constraint, parse
from cloudpilot.service.lambda_.downloads import location
from cloudpilot.service.lambda_.names import function_named
from cloudpilot.service.lambda_.operations import Call, listed, route
from cloudpilot.service.lambda_.shapes import described

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.routing import Route

    from cloudpilot.functions.registry import Registry

LARGEST_ENVIRONMENT = 4096
"""Bytes of all variables together, as with Lambda."""
RESERVED_VARIABLES = frozenset(
    (
        "_HANDLER", "_X_AMZN_TRACE_ID", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_EXECUTION_ENV", "AWS_LAMBDA_FUNCTION_NAME",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "AWS_LAMBDA_FUNCTION_VERSION", "AWS_LAMBDA_INITIALIZATION_TYPE", "AWS_LAMBDA_LOG_GROUP_NAME",
        "AWS_LAMBDA_LOG_STREAM_NAME", "AWS_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN",
        "AWS_LAMBDA_RUNTIME_API", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR",
    )
)  # fmt: skip
"""What Lambda sets itself."""
_RUNTIME = re.compile(r"python3(\.\d+)?|nodejs(\d+\.x)?|provided(\.al2|\.al2023)?")
LARGEST_UPLOAD = LARGEST_ZIP * 4 // 3 + (1 << 20)
"""Bytes of an archive in base64, and of what is around it."""
_NOTHING: tuple[Any, ...] = (None, {}, [], "", {"ApplyOn": "None"}, {"SubnetIds": [], "SecurityGroupIds": []})


def _changes(given: models.Configuration) -> dict[str, Any]:
    """What a request changes of a function's record, but for its code and its layers."""
    _refuse_absent(given)
    if given.runtime is not None and not _RUNTIME.fullmatch(given.runtime):
        words = "satisfy enum value set: [python3.x, nodejsN.x, provided, provided.al2, provided.al2023]; others bring a `bootstrap`"
        raise constraint(given.runtime, "runtime", words)
    names = ("handler", "runtime", "role", "description", "timeout", "memory_mb")
    changes = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    if given.environment is not None:
        _check_variables(given.environment.variables)
        changes["env"] = given.environment.variables
    if given.storage is not None:
        changes["ephemeral_mb"] = given.storage.size
    if given.image is not None:
        changes["image_config"] = given.image.model_dump(by_alias=True, exclude_none=True)
    return changes


def _refuse_absent(given: models.Configuration) -> None:
    reasons = {
        "network": "instances have no network but their own loopback",
        "file_systems": "code and layers are the only directories that an instance sees",
        "key": "the store keeps variables as they are",
        "snap_start": "it waits for snapshots",
        "tenancy": "use a project for each tenant",
        "capacity": "there is this host only",
        "durable": "use a queue of your own",
        "accelerator": "there is none",
    }
    for name, reason in reasons.items():
        if getattr(given, name) not in _NOTHING:
            field = models.Configuration.model_fields[name].alias
            raise invalid(f"{field} is not supported here: {reason}. Leave it out")


def _check_variables(variables: Mapping[str, str]) -> None:
    reserved = sorted(RESERVED_VARIABLES.intersection(variables))
    if reserved:
        raise invalid(
            "Lambda was unable to configure your environment variables because the environment variables you have provided contains "
            f"reserved keys that are currently not supported for modification. Reserved keys used in this request: {', '.join(reserved)}"
        )
    size = sum(len(name.encode()) + len(value.encode()) for name, value in variables.items())
    if size > LARGEST_ENVIRONMENT:
        raise invalid(
            "Lambda was unable to configure your environment variables because the environment variables you have provided exceeded the "
            f"4KB limit. They have {size} bytes"
        )
    if any("\0" in value for value in variables.values()):
        raise invalid("A variable holds a zero byte, which no program can be given")


def _options(given: models.Configuration, before: dict[str, Any]) -> dict[str, Any]:
    """What is kept and answered."""
    options = dict(before)
    if given.tracing is not None:
        options["TracingConfig"] = {"Mode": given.tracing.mode}
    if given.logging is not None:
        options["LoggingConfig"] = {**options.get("LoggingConfig", {}), **given.logging.model_dump(by_alias=True, exclude_none=True)}
    return options


async def unpacked(call: Call, code: models.Code) -> dict[str, Any]:
    """Code that a request brings, as a record has it."""
    if code.bucket is not None:
        raise invalid("There is no S3 here: give the code as `ZipFile`")
    if not code.zip_file:
        raise invalid("Please provide a source for function code: `ZipFile`.")
    try:
        archive = base64.b64decode(code.zip_file, validate=True)
    except (ValueError, binascii.Error):
        raise invalid("`ZipFile` is not base64") from None
    digest = await anyio.to_thread.run_sync(call.registry.codes.put, archive)
    return {"digest": digest, "code_size": len(archive)}


async def _code(call: Call, package: str, code: models.Code) -> dict[str, Any]:
    if code.architectures is not None and code.architectures != ["x86_64"]:
        raise constraint(code.architectures, "architectures", "satisfy enum value set: [x86_64], which this host has")
    if package == "Zip":
        if code.image is not None:
            raise invalid("Please don't provide ImageUri when updating a function with packageType Zip.")
        return await unpacked(call, code)
    if code.image is None:
        raise invalid("Please provide ImageUri when updating a function with packageType Image.")
    found = await anyio.to_thread.run_sync(image_of, call, code.image)
    return {"image": code.image, **found}


def image_of(call: Call, name: str) -> dict[str, Any]:
    """An image as a record has it: one of the service's, or of a layout on the host's disk, which only admins may name."""
    images = call.registry.images
    try:
        if name.startswith("oci:"):
            call.caller.need("admin")
            path, _, tag = name.removeprefix("oci:").partition(":")
            image = images.import_layout(path, tag or None)
        else:
            image = images.get(name)
        digest = image.digest.removeprefix("sha256:")
        images.tag(image, image_name(digest))
    except SandboxException as error:
        raise invalid(f"Source image {name} is not valid. {error}. Give a name that the service knows, or `oci:PATH[:TAG]`") from None
    if not image.config.entrypoint and not image.config.command:
        raise invalid(f"Source image {name} is not valid. It names no program: it has neither an entry point nor a command")
    return {"digest": digest, "code_size": image.size}


async def _layers(call: Call, digest: str, layers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Layers that fit together with the code."""
    codes = call.registry.codes

    def check() -> None:
        size = sum(codes.unpacked_size(each) for each in (digest, *(layer["digest"] for layer in layers)))
        if size > LARGEST_UNPACKED:
            raise invalid(
                f"Function code combined with layers exceeds the maximum allowed size of {LARGEST_UNPACKED} bytes. "
                f"The actual size is {size} bytes."
            )
        codes.merged([layer["digest"] for layer in layers])

    if layers:
        await anyio.to_thread.run_sync(check)
    return layers


async def _create(call: Call) -> Response:
    given = parse(models.Creation, call.text)
    named = function_named(given.name)
    name = named.unqualified()
    if given.signing is not None:
        raise FunctionError("CodeSigningConfigNotFoundException", f"There is no code signing configuration {given.signing}")
    if given.package == "Zip" and (given.runtime is None or given.handler is None):
        raise invalid("Runtime and Handler are mandatory parameters for functions created with deployment packages.")
    if given.package == "Image" and (given.runtime is not None or given.handler is not None or given.layers):
        raise invalid("Please don't provide Handler or Runtime or Layer when the intended function PackageType is Image.")
    settings.check_tags(given.tags)
    changes = _changes(given)
    target = await _dead_letters(call, given.dead_letters)
    if call.registry.find(call.project, name) is not None:
        raise conflict(f"Function already exist: {name}")
    given.code.architectures = given.architectures or given.code.architectures
    code = await _code(call, given.package, given.code)
    layers = await _layers(call, code["digest"], call.layers.resolve(call.project, given.layers or []))
    call.state.access.admit(call.project, {"most_functions": call.registry.count(call.project) + 1})
    fields = {"runtime": "", "handler": "", **changes, **code, "layers": layers, "dead_letters": target, "options": _options(given, {})}
    function = call.registry.create(Function(name=name, project=call.project, package=given.package, **fields), given.tags)
    call.note("function.create", name)
    if given.publish:
        function = call.registry.publish(call.project, name)
    return reply(described(function), 201)


async def _dead_letters(call: Call, given: models.DeadLetters | None) -> str | None:
    if given is None or not given.target:
        return None
    return settings.destination(call, given.target, "DeadLetterConfig.TargetArn")


async def _list(call: Call) -> Response:
    every = call.query("FunctionVersion")
    if every not in (None, "ALL"):
        raise constraint(every, "functionVersion", "satisfy enum value set: [ALL]")
    functions = call.registry.all(call.project)
    if every:
        functions = [version for each in functions for version in call.registry.versions(call.project, each.name)]
    page, marker = call.page(functions)
    return reply(listed("Functions", [described(each, each.version if every else None) for each in page], marker))


def one(call: Call) -> tuple[Function, str | None]:
    """The function that the path names, and by what qualifier. An alias with weights shows its first version."""
    named = call.named()
    version = named.qualifier or LATEST
    if version != LATEST and not version.isdigit():
        call.registry.check_qualifier(call.project, named.name, version)
        version = call.registry.alias(call.project, named.name, version).version
    return call.registry.get(call.project, named.name, version), named.qualifier


async def _get(call: Call) -> Response:
    function, qualifier = one(call)
    answer: dict[str, Any] = {"Configuration": described(function, qualifier), "Tags": settings.tags_of(call, function.name)}
    if function.package == "Image":
        uri = function.image or ""
        answer["Code"] = {"RepositoryType": "ECR", "ImageUri": uri, "ResolvedImageUri": f"{uri.partition('@')[0]}@sha256:{function.digest}"}
    else:
        answer["Code"] = {"RepositoryType": "S3", "Location": location(call, function.digest)}
    reserved = call.registry.reserved(call.project, function.name)
    if reserved is not None:
        answer["Concurrency"] = {"ReservedConcurrentExecutions": reserved}
    return reply(answer)


async def _configuration(call: Call) -> Response:
    function, qualifier = one(call)
    return reply(described(function, qualifier))


async def _delete(call: Call) -> Response:
    named = call.named()
    if named.qualifier == LATEST:
        raise invalid("$LATEST version cannot be deleted without deleting the function.")
    if named.qualifier is not None and not named.qualifier.isdigit():
        raise invalid("Deletion of aliases is not currently supported.")
    call.registry.get(call.project, named.name)
    if named.qualifier is None:
        call.registry.remove(call.project, named.name)
        call.state.logs.remove(call.project, named.name)
    else:
        call.registry.remove_version(call.project, named.name, named.qualifier)
    call.note("function.delete", named.name if named.qualifier is None else f"{named.name}:{named.qualifier}")
    await anyio.to_thread.run_sync(collect, call.registry, call.registry.used_digests())
    return Response(status_code=204)


def collect(registry: Registry, used: set[str]) -> None:
    """Removes code and images that nothing refers to any more. Blocks for as long as the disk takes."""
    registry.codes.keep_only(used)
    for image in registry.images.all():
        if image.name == image_name(image.digest.removeprefix("sha256:")) and image.digest.removeprefix("sha256:") not in used:
            registry.images.remove(image.name)


async def _update_code(call: Call) -> Response:
    name = call.whole()
    function = call.registry.get(call.project, name)
    given = parse(models.CodeUpdate, call.text)
    check_revision(function.revision, given.revision)
    changes = await _code(call, function.package, given)
    await _layers(call, changes["digest"], function.layers)
    if given.dry_run:
        return reply(described(function))
    function = call.registry.update(function, given.revision, **changes)
    call.note("function.code", name)
    return reply(described(call.registry.publish(call.project, name) if given.publish else function))


async def _update_configuration(call: Call) -> Response:
    name = call.whole()
    function = call.registry.get(call.project, name)
    given = parse(models.Configuration, call.text)
    changes = _changes(given)
    if given.dead_letters is not None:
        changes["dead_letters"] = await _dead_letters(call, given.dead_letters)
    if given.layers is not None:
        # A layer that it has already may have been removed: it is kept.
        known = {layer["arn"]: layer for layer in function.layers}
        added = {each["arn"]: each for each in call.layers.resolve(call.project, [arn for arn in given.layers if arn not in known])}
        changes["layers"] = await _layers(call, function.digest, [known.get(arn) or added[arn] for arn in given.layers])
    changes["options"] = _options(given, function.options)
    function = call.registry.update(function, given.revision, **changes)
    call.note("function.configuration", name)
    return reply(described(function))


def routes() -> list[Route]:
    """The operations' routes."""
    prefix = "/2015-03-31/functions"
    one_of_them = prefix + "/{name}"
    return [
        route(prefix, "POST", _create, LARGEST_UPLOAD),
        route(prefix + "/", "POST", _create, LARGEST_UPLOAD),
        route(prefix, "GET", _list),
        route(prefix + "/", "GET", _list),
        route(one_of_them + "/code", "PUT", _update_code, LARGEST_UPLOAD),
        route(one_of_them + "/configuration", "PUT", _update_configuration),
        route(one_of_them + "/configuration", "GET", _configuration),
        route(one_of_them, "GET", _get),
        route(one_of_them, "DELETE", _delete),
    ]
