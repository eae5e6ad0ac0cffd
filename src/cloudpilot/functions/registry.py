"""Functions, their versions and their settings, in the store. Who must know of changes listens."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import replace

from cloudpilot.functions.code import Codes
from cloudpilot.functions.errors import missing
from cloudpilot.functions.records import LATEST, EventConfig, Function, arn_of
from cloudpilot.store import Store


class Registry:
    """All functions of the service."""

    def __init__(self, store: Store, codes: Codes) -> None:
        self.store = store
        self.codes = codes
        self.on_change: list[Callable[[str, str], None]] = []
        """Called with project and name of a function after it, or its limits, have changed, or it has gone."""

    def get(self, project: str, name: str, version: str = LATEST) -> Function:
        """One version of a function."""
        entry = self.store.get(_key(project, name, version))
        if entry is None:
            raise missing(f"Function not found: {arn_of(name, None if version == LATEST else version)}")
        return Function.from_value(entry.value)

    def all(self, project: str) -> list[Function]:
        """A project's functions."""
        return [Function.from_value(entry.value) for entry in self.store.range(f"functions/{project}/")]

    def put(self, function: Function) -> Function:
        """Adds a function, or changes it for calls to come."""
        function = replace(function, revision=str(uuid.uuid4()), modified=time.time())
        self.store.transact({_key(function.project, function.name, function.version): function.as_value()})
        self.changed(function.project, function.name)
        return function

    def remove(self, function: Function) -> None:
        """Removes a function."""
        self.store.transact({_key(function.project, function.name, function.version): None})
        self.changed(function.project, function.name)
        self.codes.keep_only({entry.value["digest"] for entry in self.store.range("functions/")})

    def changed(self, project: str, name: str) -> None:
        """Tells those who listen."""
        for listener in self.on_change:
            listener(project, name)

    # What the data plane asks for.

    def is_current(self, function: Function) -> bool:
        """Whether that is still what the store has."""
        entry = self.store.get(_key(function.project, function.name, function.version))
        return entry is not None and entry.value["revision"] == function.revision

    def event_config(self, function: Function) -> EventConfig:
        """What becomes of its calls that nobody waits for."""
        entry = self.store.get(f"function-events/{function.project}/{function.name}/{function.version}")
        return EventConfig() if entry is None else EventConfig.from_value(entry.value)

    def reserved(self, project: str, name: str) -> int | None:
        """How many calls of a function, of all its versions together, may be under way at a time; none is no limit of its own."""
        entry = self.store.get(f"function-reserved/{project}/{name}")
        return None if entry is None else int(entry.value["limit"])

    def provisioned(self, project: str, name: str) -> dict[str, int]:
        """How many instances of which version are to be kept ready."""
        prefix = f"function-provisioned/{project}/{name}/"
        result: dict[str, int] = {}
        for entry in self.store.range(prefix):
            version = str(entry.value["version"])
            result[version] = result.get(version, 0) + int(entry.value["instances"])
        return result


def _key(project: str, name: str, version: str) -> str:
    return f"functions/{project}/{name}" if version == LATEST else f"function-versions/{project}/{name}/{version.zfill(12)}"
