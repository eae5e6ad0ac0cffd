"""Templates built from steps: commands run and files copied inside a sandbox, whose changes become a layer of a new image."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import posixpath
import re
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

from starlette.concurrency import run_in_threadpool

from cloudpilot.errors import NotFoundException, SandboxException
from cloudpilot.hosting.agent import Agent
from cloudpilot.hosting.failures import Failure, Kind
from cloudpilot.hosting.limits import LARGEST_UPLOAD
from cloudpilot.hosting.processes import End, Output
from cloudpilot.hosting.sandboxes import Sandboxes
from cloudpilot.hosting.tasks import Progress
from cloudpilot.hosting.templates import BASE, BUILT, Template, Templates
from cloudpilot.images.image import Image, ImageConfig
from cloudpilot.images.store import Images

MOST_STEPS = 500
LONGEST_BUILD = 3600
"""Seconds that a build may take in all."""
MOST_REMEMBERED = 100
"""Builds whose images are kept to be used again. What templates use is kept anyway."""
_CACHE = "build/"
BUILD_MEMORY_MB = 2048
"""Memory of the sandbox that steps run in, at least: what they write lies in it until the build is done."""
_E2B_BASES = ("e2bdev/base", "e2bdev/code-interpreter")
_E2B_USER = "user"
_UPLOADED = "/tmp/.cloudpilot-upload"
_NOT_OURS = ["/proc", "/sys", "/dev", "/tmp", "/run", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf", "/var/run", "/var/lock"]
"""What a sandbox's own kernel puts there, and what no system keeps."""
_HASH = re.compile("[0-9a-f]{64}")
# The archive has the source's path as it was named; what matters is what lies at its end.
_COPY = """\
set -e
unpacked=$(mktemp -d)
trap 'rm -rf "$unpacked" "$1"' EXIT
tar "-x$6" -f "$1" -C "$unpacked"
cd "$unpacked/$2"
if [ -n "$4" ]; then chown -R "$4" .; fi
if [ -n "$5" ]; then chmod -R "$5" .; fi
set -- "$1" "$2" "$3" "$(ls -A | head -n 1)" "$(ls -A | wc -l)"
if [ "$5" = 1 ] && [ -d "$4" ] && [ ! -L "$4" ]; then
    mkdir -p "$3"
    cp -a "$4/." "$3"
elif [ "$5" = 1 ] && [ "${3%/}" = "$3" ] && [ ! -d "$3" ]; then
    mkdir -p "$(dirname "$3")"
    cp -a "$4" "$3"
else
    mkdir -p "$3"
    cp -a . "$3"
fi
"""


@dataclass(frozen=True, slots=True)
class Step:
    """One step: `RUN`, `COPY`, `ENV`, `WORKDIR` or `USER`, with what E2B's client gives it."""

    kind: str
    args: list[str]
    files_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Build:
    """A template that shall be built."""

    template: Template
    tags: list[str] = field(default_factory=list)
    from_image: str | None = None
    from_template: str | None = None
    steps: list[Step] = field(default_factory=list)
    again: bool = False
    """Even if the same was built before."""


@dataclass(slots=True)
class _Place:
    """Where steps are: as whom, in which directory, with which variables."""

    user: str
    workdir: str
    envs: dict[str, str]


class Builds:
    """Builds templates."""

    def __init__(self, templates: Templates, sandboxes: Sandboxes, directory: str) -> None:
        self._templates = templates
        self._sandboxes = sandboxes
        self._files = os.path.join(directory, "build-files")

    @property
    def _images(self) -> Images:
        return self._templates.images

    # Files for `COPY`.

    def file_path(self, project: str, digits: str) -> str:
        """Where the archive of that hash is, or is to be."""
        if not _HASH.fullmatch(digits):
            raise Failure(Kind.INVALID, "This is no hash", field="filesHash", remedy="give 64 hexadecimal digits")
        # Each project has its own: the hash is the client's word, and says nothing about the archive.
        return os.path.join(self._files, project, digits)

    def has_file(self, project: str, digits: str) -> bool:
        """Whether that archive is here."""
        return os.path.exists(self.file_path(project, digits))

    async def store_file(self, project: str, digits: str, chunks: AsyncIterator[bytes]) -> None:
        """Keeps an archive that a client sends."""
        path = self.file_path(project, digits)
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
        try:
            size = 0
            with open(descriptor, "wb") as file:  # noqa: ASYNC230 -- the host's disk takes what comes at once
                async for chunk in chunks:
                    size += len(chunk)
                    if size > LARGEST_UPLOAD:
                        raise Failure(Kind.TOO_LARGE, f"An upload has at most {LARGEST_UPLOAD >> 30} GiB", remedy="copy less at a time")
                    file.write(chunk)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise

    # Building.

    def base_of(self, build: Build, project: str) -> tuple[Image, Template]:
        """The image that a build begins with, and the template whose limits its sandbox has."""
        if build.from_template:
            template = self._templates.get(build.from_template, "fromTemplate", project)
            if template.image is None:
                raise _no_image(build.from_template)
            return self._images.get(template.image), template
        name = build.from_image or BASE
        repository = name.partition("@")[0].partition(":")[0]
        if repository in _E2B_BASES:
            name = BASE
        base = self._templates.get(BASE)
        try:
            return self._images.get(name), replace(base, start_command=None, ready_command=None)
        except NotFoundException:
            if name == BASE:
                raise _no_image(BASE) from None
            remedy = "nothing is pulled from registries: add it with `pilot image import`, from a layout or a `docker save`"
            raise Failure(Kind.NOT_FOUND, f"There is no image `{name}` on this host", field="fromImage", remedy=remedy) from None

    async def run(self, build: Build, project: str, progress: Progress) -> dict[str, Any]:
        """Builds a template; the work of a task."""
        image, origin = self.base_of(build, project)
        if len(build.steps) > MOST_STEPS:
            raise Failure(Kind.LIMIT, f"There are more than {MOST_STEPS} steps", field="steps", remedy="join some")
        place = _Place(origin.user or _E2B_USER, origin.workdir, dict(origin.envs))
        progress.note(f"from {image.name}")
        key = self._key(build, image, project)
        made = self._images.get(key) if self._images.has(key) and not build.again else None
        if made is not None:
            progress.note("the same was built before: its image is used again")
        else:
            try:
                async with asyncio.timeout(LONGEST_BUILD):
                    made = await self._build(build, project, image, origin, place, key, progress)
            except TimeoutError:
                remedy = "build it in parts, one from the other"
                raise Failure(Kind.TIMEOUT, f"The build took longer than {LONGEST_BUILD} s", remedy=remedy) from None
        names = [build.template.name, *(f"{build.template.name.partition(':')[0]}:{tag}" for tag in build.tags)]
        for name in dict.fromkeys(names):
            kept = self._images.tag(made, BUILT + name.replace(":", "/"))
            self._templates.put(replace(build.template, name=name, image=kept.name, created=time.time(), build_id=progress.task.id))
        await run_in_threadpool(self._forget_oldest)
        progress.note(f"the template {build.template.name} is ready")
        return {"template": build.template.name, "image": made.name}

    def _forget_oldest(self) -> None:
        found = sorted((image for image in self._images.all() if image.name.startswith(_CACHE)), key=lambda image: image.created)
        for image in found[: max(0, len(found) - MOST_REMEMBERED)]:
            self._images.remove(image.name)

    @staticmethod
    def _key(build: Build, image: Image, project: str) -> str:
        steps = [[step.kind, step.args, step.files_hash] for step in build.steps]
        commands = [build.template.start_command, build.template.ready_command]
        # Archives are a project's own, and so is what was made of them.
        text = json.dumps([image.root, image.digest, steps, commands, project])
        return f"{_CACHE}{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    async def _build(
        self, build: Build, project: str, image: Image, origin: Template, place: _Place, key: str, progress: Progress
    ) -> Image:
        memory = max(BUILD_MEMORY_MB, build.template.memory_mb)
        inside = replace(origin, start_command=None, ready_command=None, root=image.root, memory_mb=memory, cpus=None)
        sandbox = await self._sandboxes.create_for(project, inside, timeout=LONGEST_BUILD + 600, kind="build")
        try:
            agent = sandbox.inside
            for number, step in enumerate(build.steps, 1):
                progress.note(f"[{number}/{len(build.steps)}] {step.kind} {' '.join(step.args)}", step=str(number))
                try:
                    await self._step(agent, step, place, project, progress, str(number))
                except (Failure, SandboxException) as error:
                    raise _StepFailed(number, step, error) from None
                progress.done(0.9 * number / len(build.steps))
            progress.note("saving what has changed")
            made = await self._save(agent, image, place, key, progress)
            await self._try_start(agent, build.template, place, progress)
            return made
        finally:
            self._sandboxes.kill(sandbox)
            await asyncio.wait_for(sandbox.gone.wait(), 30)

    async def _step(self, agent: Agent, step: Step, place: _Place, project: str, progress: Progress, name: str) -> None:
        args = step.args
        if step.kind == "RUN" and args:
            shell = await _shell(agent)
            await _run(agent, [shell, "-l", "-c", args[0]], place, args[1] if len(args) > 1 else place.user, progress, name)
        elif step.kind == "ENV" and args and len(args) % 2 == 0:
            place.envs |= dict(zip(args[::2], args[1::2], strict=True))
        elif step.kind == "WORKDIR" and args:
            place.workdir = posixpath.normpath(posixpath.join(place.workdir or "/", args[0]))
            who, _ = await agent.who(place.user)
            if (await agent.call("make_dir", {"path": place.workdir, "user": None}))["created"] and who["uid"]:
                await _run(agent, ["chown", f"{who['uid']}:{who['gid']}", place.workdir], place, "root", progress, name)
        elif step.kind == "USER" and args:
            await agent.who(args[0])
            place.user = args[0]
        elif step.kind == "COPY" and len(args) >= 2 and step.files_hash:
            await self._copy(agent, step, place, project, progress, name)
        else:
            message = f"The step `{step.kind}` with {len(args)} arguments is not one that there is"
            raise Failure(Kind.INVALID, message, field="steps", remedy="use RUN, COPY, ENV, WORKDIR or USER")

    async def _copy(self, agent: Agent, step: Step, place: _Place, project: str, progress: Progress, name: str) -> None:
        assert step.files_hash is not None
        source, target, user, mode = [*step.args, "", ""][:4]
        path = self.file_path(project, step.files_hash)
        if not self.has_file(project, step.files_hash):
            raise Failure(Kind.NOT_FOUND, f"The files of `{source}` were not uploaded", remedy="build again: the client uploads them")
        owner, home = await agent.who(user or place.user)
        full = posixpath.normpath(posixpath.join(place.workdir or home, target)) + ("/" if target.endswith("/") else "")
        above = posixpath.dirname(posixpath.normpath(source))
        with open(path, "rb") as file:  # noqa: ASYNC230 -- it is handed on, not read
            # Not every `tar` looks for itself.
            packed = "z" if file.read(2) == b"\x1f\x8b" else ""
            file.seek(0)
            await agent.write_file(_UPLOADED, None, file.fileno())
        arguments = [_UPLOADED, above, full, f"{owner['uid']}:{owner['gid']}", mode, packed]
        await _run(agent, ["/bin/sh", "-c", _COPY, "copy", *arguments], place, "root", progress, name)

    async def _save(self, agent: Agent, image: Image, place: _Place, key: str, progress: Progress) -> Image:
        self._images.prepare()
        descriptor, path = tempfile.mkstemp(dir=os.path.join(self._images.directory, "temporary"), prefix="layer-")
        try:
            answer = await agent.call("write_layer", {"leave_out": _NOT_OURS}, [descriptor], None)
            progress.note(f"the layer has {answer['size'] >> 10} KiB")
            before = image.config
            config = ImageConfig(
                entrypoint=before.entrypoint, command=before.command, environment=place.envs, workdir=place.workdir or before.workdir,
                user=place.user, exposed_ports=before.exposed_ports, stop_signal=before.stop_signal, labels=before.labels,
            )  # fmt: skip
            return await run_in_threadpool(self._images.add, key, image, [path], config)
        finally:
            os.close(descriptor)
            os.unlink(path)

    async def _try_start(self, agent: Agent, template: Template, place: _Place, progress: Progress) -> None:
        """Starts it once as each sandbox of it will be: what never gets ready is found here rather than by everybody."""
        if not template.start_command and not template.ready_command:
            return
        progress.note("trying its start")
        placed = {"envs": place.envs, "user": place.user, "cwd": place.workdir or None}
        if template.start_command:
            await agent.start(["/bin/sh", "-c", template.start_command], listen=False, **placed)  # type: ignore[arg-type]
        deadline = time.monotonic() + template.ready_timeout
        while template.ready_command:
            process = await agent.start(["/bin/sh", "-c", template.ready_command], **placed)  # type: ignore[arg-type]
            code = [item.code async for item in process.output() if isinstance(item, End)]
            if code == [0]:
                return
            if time.monotonic() > deadline:
                message = f"The template was not ready within {template.ready_timeout:g} s of its start"
                raise Failure(Kind.TIMEOUT, message, field="readyCmd", remedy="look at its start command and its ready command")
            await asyncio.sleep(0.2)


class _StepFailed(Failure):
    """A step that failed. `step` is its number, by which E2B's client finds the line of the program that asked for it."""

    def __init__(self, number: int, step: Step, error: Failure | SandboxException) -> None:
        kind = error.kind if isinstance(error, Failure) else Kind.CONFLICT
        remedy = error.remedy if isinstance(error, Failure) else error.hint
        message = f"Step {number}, {step.kind} {' '.join(step.args)[:200]}, failed: {error.message}"
        super().__init__(kind, message, field=f"steps.{number}", remedy=remedy or "the task's events show what it printed")


def _no_image(name: str) -> Failure:
    remedy = "`pilot image build base` makes one for `base`"
    return Failure(Kind.CONFLICT, f"The template `{name}` shows programs of the host and is no image to build on", remedy=remedy)


async def _shell(agent: Agent) -> str:
    try:
        await agent.call("stat", {"path": "/bin/bash", "user": None})
    except SandboxException:
        return "/bin/sh"
    return "/bin/bash"


async def _run(agent: Agent, args: list[str], place: _Place, user: str, progress: Progress, step: str) -> None:
    """Runs a program of a step, whose output becomes events."""
    process = await agent.start(args, envs=place.envs, user=user, cwd=place.workdir or None)
    lines = {"stdout": _Lines("info", step, progress), "stderr": _Lines("warn", step, progress)}
    code: int | None = None
    try:
        async for item in process.output():
            if isinstance(item, Output):
                lines[item.kind].take(item.data)
            else:
                code = item.code
    finally:
        for each in lines.values():
            each.end()
        if process.end is None:
            agent.kill_soon(process.pid)
    if code != 0:
        raise Failure(Kind.CONFLICT, f"the command ended with status {code}", remedy="the task's events show what it printed")


class _Lines:
    """Makes lines of what a program writes."""

    def __init__(self, level: str, step: str, progress: Progress) -> None:
        self._level = level
        self._step = step
        self._progress = progress
        self._rest = b""

    def take(self, data: bytes) -> None:
        """Takes some."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._progress.note(line.decode(errors="replace").rstrip("\r"), self._level, self._step)
        if len(self._rest) > 4096:
            self.end()

    def end(self) -> None:
        """What is left is a line, too."""
        if self._rest:
            self._progress.note(self._rest.decode(errors="replace"), self._level, self._step)
        self._rest = b""
