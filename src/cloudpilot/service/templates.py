"""Templates: what sandboxes start from. `base` is always there and shows the host's programs; an admin adds directories."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, field
from typing import Any

from cloudpilot.service.failures import Failure, Kind
from cloudpilot.service.settings import DEFAULT_MEMORY_MB
from cloudpilot.store import Store

BASE = "base"


@dataclass(frozen=True, slots=True)
class Template:
    """What a sandbox starts from.

    Attributes:
        name: Its name.
        root: Directory of the host to show as root, read-only under memory; none shows the host's programs.
        start_command: Shell command that is started in each sandbox and runs on.
        ready_command: Shell command that succeeds once the sandbox is ready; `create` returns then.
        ready_timeout: Seconds that this may take.
        envs: Environment of commands.
        memory_mb: Memory of a sandbox.
        cpus: CPUs' worth of time; none is no limit.
        network: What its sockets reach: `none` or `host`.
        prepared: Sandboxes that wait, started in advance.
    """

    name: str
    root: str | None = None
    start_command: str | None = None
    ready_command: str | None = None
    ready_timeout: float = 60.0
    envs: dict[str, str] = field(default_factory=dict)
    memory_mb: int = DEFAULT_MEMORY_MB
    cpus: float | None = None
    network: str = "none"
    volumes: list[dict[str, Any]] = field(default_factory=list)
    """Directories of the host; functions have their code there."""
    prepared: int = 0

    def shown(self) -> dict[str, Any]:
        """What everybody may know of it, and what the store keeps."""
        return {name: each for name, each in asdict(self).items() if name != "volumes"}


class Templates:
    """Templates in the store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def get(self, name: str, field: str = "template") -> Template:
        """One template."""
        entry = self._store.get(f"templates/{name}")
        if entry is not None:
            return Template(**entry.value)
        if name == BASE:
            return Template(BASE)
        raise Failure(Kind.NOT_FOUND, f"There is no template `{name}`", field=field, remedy="use `base`, or add it: POST /v1/templates")

    def all(self) -> list[Template]:
        """All templates."""
        stored = [Template(**entry.value) for entry in self._store.range("templates/")]
        return stored if any(each.name == BASE for each in stored) else [Template(BASE), *stored]

    def put(self, template: Template) -> None:
        """Adds a template, or replaces it for sandboxes to come."""
        if template.root is not None and not (os.path.isabs(template.root) and os.path.isdir(template.root)):
            message = f"`{template.root}` is not a directory of this host"
            raise Failure(Kind.INVALID, message, field="root", remedy="give the absolute path of a root file system")
        self._store.transact({f"templates/{template.name}": template.shown()})

    def remove(self, name: str) -> None:
        """Removes a template; sandboxes that run are not affected."""
        if self._store.get(f"templates/{name}") is None:
            raise Failure(Kind.NOT_FOUND, f"There is no template `{name}` to remove", remedy="GET /v1/templates lists them")
        self._store.transact({f"templates/{name}": None})
