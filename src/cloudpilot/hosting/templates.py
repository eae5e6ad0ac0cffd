"""Templates: what sandboxes start from. An image or a directory, with a command that runs on and a probe that says when it is ready.

`base` is always there: the image `base` once it has been built, the host's own programs before.
"""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cloudpilot.errors import NotFoundException
from cloudpilot.hosting.failures import Failure, Kind
from cloudpilot.hosting.limits import DEFAULT_MEMORY_MB
from cloudpilot.images.image import Image
from cloudpilot.images.owners import root_setting
from cloudpilot.images.store import Images
from cloudpilot.store import Store

BASE = "base"
BUILT = "template/"
"""How the names of images begin that templates were built as."""
DEFAULT_TAG = "default"
"""What E2B calls the build that a name without a tag means."""


@dataclass(frozen=True, slots=True)
class Template:
    """What a sandbox starts from.

    Attributes:
        name: Its name; one of several builds is `NAME:TAG`.
        root: Directory of the host to show as root, read-only under memory; without it and an image, the host's programs.
        image: Image of this host to start from.
        start_command: Shell command that is started in each sandbox and runs on.
        ready_command: Shell command that succeeds once the sandbox is ready; `create` returns then.
        ready_timeout: Seconds that this may take.
        envs: Environment of commands.
        memory_mb: Memory of a sandbox.
        cpus: CPUs' worth of time; none is no limit.
        network: What its sockets reach: `none` or `host`.
        project: Whose it is; none is everybody's.
        user: Who commands run as where nothing is said.
        workdir: Where they begin; none is the user's home.
        build_id: The task that built it.
        created: When it was made.
        volumes: Directories of the host; functions have their code there.
        prepared: Sandboxes that wait, started in advance.
    """

    name: str
    root: str | None = None
    image: str | None = None
    start_command: str | None = None
    ready_command: str | None = None
    ready_timeout: float = 60.0
    envs: dict[str, str] = field(default_factory=dict)
    memory_mb: int = DEFAULT_MEMORY_MB
    cpus: float | None = None
    network: str = "none"
    project: str | None = None
    user: str = ""
    workdir: str = ""
    build_id: str | None = None
    created: float = 0.0
    volumes: list[dict[str, Any]] = field(default_factory=list)
    prepared: int = 0

    def kept(self) -> dict[str, Any]:
        """What the store keeps."""
        return {name: each for name, each in asdict(self).items() if name != "volumes"}

    @property
    def root_setting(self) -> dict[str, Any]:
        """Its root, as the engine is told it."""
        return root_setting(self.root) if self.root else {"kind": "host"}


class Templates:
    """Templates in the store."""

    def __init__(self, store: Store, images: Images) -> None:
        self._store = store
        self.images = images

    def find(self, name: str, project: str | None) -> Template | None:
        """A template as it was made, if there is one that the project may see."""
        entry = self._store.get(f"templates/{plain(name)}")
        found = Template(**entry.value) if entry is not None else Template(BASE, image=self._base()) if name == BASE else None
        if found is not None and project is not None and found.project not in (None, project):
            return None
        return found

    def _base(self) -> str | None:
        return BASE if self.images.has(BASE) else None

    def get(self, name: str, field: str = "template", project: str | None = None) -> Template:
        """One template, with what its image says: ready to start sandboxes from."""
        found = self.find(name, project)
        if found is None:
            raise Failure(Kind.NOT_FOUND, f"There is no template `{name}`", field=field, remedy="use `base`, or add it: POST /v1/templates")
        return found if found.image is None else self._of_image(found, self._image(found.image))

    def _image(self, name: str) -> Image:
        try:
            return self.images.get(name)
        except NotFoundException as error:
            raise Failure(Kind.NOT_FOUND, error.message, field="image", remedy=error.hint) from None

    @staticmethod
    def _of_image(template: Template, image: Image) -> Template:
        config = image.config
        workdir = template.workdir or (config.workdir if config.workdir != "/" else "")
        envs = {**config.environment, **template.envs}
        return replace(template, root=image.root, envs=envs, user=template.user or config.user, workdir=workdir)

    def all(self, project: str | None = None) -> list[Template]:
        """All templates that a project may see, `base` first where nobody has made one of that name."""
        stored = [Template(**entry.value) for entry in self._store.range("templates/")]
        seen = [each for each in stored if project is None or each.project in (None, project)]
        return seen if any(each.name == BASE for each in stored) else [Template(BASE, image=self._base()), *seen]

    def prepared(self) -> list[Template]:
        """Those of which sandboxes shall wait, ready to start sandboxes from."""
        found = []
        for each in self.all():
            if each.prepared:
                # One whose image is gone has none.
                with contextlib.suppress(Failure):
                    found.append(self.get(each.name))
        return found

    def tags(self, name: str, project: str | None) -> list[Template]:
        """All builds of that name."""
        base = plain(name).partition(":")[0]
        return [each for each in self.all(project) if each.name.partition(":")[0] == base]

    def put(self, template: Template) -> Template:
        """Adds a template, or replaces it for sandboxes to come."""
        if template.root is not None and template.image is not None:
            raise Failure(Kind.INVALID, "A template has a root or an image, not both", field="root", remedy="leave one out")
        if template.root is not None and not (os.path.isabs(template.root) and os.path.isdir(template.root)):
            message = f"`{template.root}` is not a directory of this host"
            raise Failure(Kind.INVALID, message, field="root", remedy="give the absolute path of a root file system")
        if template.image is not None:
            self._image(template.image)
        template = replace(template, name=plain(template.name), created=template.created or time.time())
        self._store.transact({f"templates/{template.name}": template.kept()})
        return template

    def remove(self, name: str, project: str | None = None) -> None:
        """Removes a template; sandboxes that run are not affected."""
        if self._store.get(f"templates/{plain(name)}") is None or self.find(name, project) is None:
            raise Failure(Kind.NOT_FOUND, f"There is no template `{name}` to remove", remedy="GET /v1/templates lists them")
        found = self.find(name, None)
        self._store.transact({f"templates/{plain(name)}": None})
        if found is not None and found.image is not None and found.image.startswith(BUILT):
            # It was made for this template alone.
            with contextlib.suppress(NotFoundException):
                self.images.remove(found.image)

    def check_owner(self, name: str, project: str, *, admin: bool) -> None:
        """Refuses to let a project replace what is not its own."""
        entry = self._store.get(f"templates/{plain(name)}")
        owner = entry.value.get("project") if entry is not None else project
        if (owner != project or plain(name) == BASE) and not admin:
            raise Failure(Kind.FORBIDDEN, f"The template `{name}` belongs to somebody else", field="name", remedy="choose another name")


def plain(name: str) -> str:
    """A template's name as it is kept: without the tag that is meant anyway."""
    return name.removesuffix(f":{DEFAULT_TAG}")
