"""Functions, their versions and aliases, in the store. Who must know of changes listens.

Versions are copies that never change; their numbers are not used again as long as there is the function. An alias is a name for one or two
of them. What belongs to a function lies under keys that begin with its family, its project and its name, and goes with it.
"""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from cloudpilot.functions.code import Codes, merged_name
from cloudpilot.functions.errors import FunctionError, conflict, invalid, missing
from cloudpilot.functions.records import LATEST, Alias, EventConfig, Function, arn_of
from cloudpilot.images.store import Images
from cloudpilot.store import Store

MOST_ALIASES = 100
"""Aliases of a function: each is looked through when a version is removed."""
MOST_FOUND = 10_000
"""Functions that are kept at hand as they are in the store: reading one costs as much as half of a call."""
FAMILIES = (
    "function-versions",
    "function-aliases",
    "function-events",
    "function-urls",
    "function-policies",
    "function-provisioned",
)
"""Keys of what belongs to a function, several of each."""
SINGLES = ("function-reserved", "function-tags", "function-counters", "function-options")
"""Keys of what belongs to a function, one of each."""
_NOT_COMPARED = ("version", "revision", "modified", "description")


class Registry:
    """All functions of the service."""

    def __init__(self, store: Store, codes: Codes, images: Images) -> None:
        self.store = store
        self.codes = codes
        self.images = images
        self._found: dict[str, Function] = {}
        self.on_change: list[Callable[[str, str], None]] = []
        """Called with project and name of a function after it, or its limits, have changed, or it has gone."""

    # Functions.

    def find(self, project: str, name: str, version: str = LATEST) -> Function | None:
        """One version of a function, if there is one."""
        key = _key(project, name, version)
        function = self._found.get(key)
        if function is None and (entry := self.store.get(key)) is not None:
            if len(self._found) >= MOST_FOUND:
                self._found.clear()
            function = self._found[key] = Function.from_value(entry.value)
        return function

    def get(self, project: str, name: str, version: str = LATEST) -> Function:
        """One version of a function."""
        found = self.find(project, name, version)
        if found is None:
            raise missing(f"Function not found: {arn_of(name, None if version == LATEST else version)}")
        return found

    def all(self, project: str) -> list[Function]:
        """A project's functions, as they can be changed."""
        return [Function.from_value(entry.value) for entry in self.store.range(f"functions/{project}/")]

    def count(self, project: str) -> int:
        """How many functions a project has."""
        return self.store.count(f"functions/{project}/")

    def create(self, function: Function, tags: dict[str, str] | None = None) -> Function:
        """Adds a function."""
        key = _key(function.project, function.name, LATEST)
        if self.store.get(key) is not None:
            raise conflict(f"Function already exist: {function.name}")
        writes: dict[str, Any] = {key: function.as_value()}
        if tags:
            writes[f"function-tags/{function.project}/{function.name}"] = tags
        self.store.transact(writes, {key: None})
        self.changed(function.project, function.name)
        return function

    def update(self, function: Function, revision: str | None, **changes: Any) -> Function:
        """Changes a function for calls to come, if its revision is still that one, should one be given."""
        current = self.get(function.project, function.name)
        check_revision(current.revision, revision)
        function = replace(current, **changes, revision=str(uuid.uuid4()), modified=time.time())
        self.store.transact({_key(function.project, function.name, LATEST): function.as_value()})
        self.changed(function.project, function.name)
        return function

    def remove(self, project: str, name: str) -> None:
        """Removes a function with all that belongs to it."""
        self.get(project, name)
        writes: dict[str, Any] = {_key(project, name, LATEST): None}
        for family in FAMILIES:
            for entry in self.store.range(f"{family}/{project}/{name}/"):
                writes[entry.key] = None
                if family == "function-urls":
                    writes[f"function-url-ids/{entry.value['id']}"] = None
        writes.update({f"{single}/{project}/{name}": None for single in SINGLES})
        self.store.transact(writes)
        self.changed(project, name)

    def remove_version(self, project: str, name: str, version: str) -> None:
        """Removes one version, unless an alias names it."""
        function = self.find(project, name, version)
        if function is None:
            return  # As AWS has it: it is not there, which was wanted.
        users = [alias.name for alias in self.aliases(project, name) if version == alias.version or version in alias.weights]
        if users:
            names = ", ".join(users)
            raise conflict(f"Function version {version} is referenced by the aliases: {names}. Move or remove them first")
        self.store.transact({_key(project, name, version): None, f"function-provisioned/{project}/{name}/{version}": None})
        self.changed(project, name)

    def changed(self, project: str, name: str) -> None:
        """Tells those who listen. Whatever changes a function says so here, at once."""
        for key in [key for key, function in self._found.items() if (function.project, function.name) == (project, name)]:
            del self._found[key]
        for listener in self.on_change:
            listener(project, name)

    def used_digests(self) -> set[str]:
        """Code that something refers to."""
        used = {entry.value["digest"] for entry in self.store.range("layers/")}
        for family in ("functions/", "function-versions/"):
            for entry in self.store.range(family):
                used.add(entry.value["digest"])
                layers = [layer["digest"] for layer in entry.value.get("layers", ())]
                used.update((*layers, merged_name(layers)))
        return used

    # Versions.

    def versions(self, project: str, name: str) -> list[Function]:
        """A function as it can be changed, then its versions, the oldest first."""
        found = self.store.range(f"function-versions/{project}/{name}/")
        return [self.get(project, name), *(Function.from_value(entry.value) for entry in found)]

    def publish(
        self, project: str, name: str, *, code: str | None = None, revision: str | None = None, description: str | None = None
    ) -> Function:
        """Makes a copy that never changes. If nothing has changed since the last one, that one is the answer.

        Args:
            project: Whose function.
            name: Its name.
            code: The hash that its code must have.
            revision: The revision that it must have.
            description: Of the version, instead of the function's.
        """
        function, *others = self.versions(project, name)
        check_revision(function.revision, revision)
        if code is not None and code != function.digest:
            raise invalid("The CodeSha256 is different from the current one of $LATEST. Ask for that by GetFunction, and try again")
        if others and _compared(others[-1]) == _compared(function):
            return others[-1]
        counter = f"function-counters/{project}/{name}"
        entry = self.store.get(counter)
        number = 1 if entry is None else int(entry.value["next"])
        version = replace(
            function,
            version=str(number),
            description=function.description if description is None else description,
            revision=str(uuid.uuid4()),
            modified=time.time(),
        )
        self.store.transact({_key(project, name, version.version): version.as_value(), counter: {"next": number + 1}})
        return version

    # Aliases.

    def aliases(self, project: str, name: str) -> list[Alias]:
        """A function's aliases, by name."""
        return [Alias.from_value(entry.value) for entry in self.store.range(f"function-aliases/{project}/{name}/")]

    def alias(self, project: str, name: str, alias: str) -> Alias:
        """One alias."""
        entry = self.store.get(f"function-aliases/{project}/{name}/{alias}")
        if entry is None:
            self.get(project, name)
            raise missing(f"Cannot find alias arn: {arn_of(name, alias)}")
        return Alias.from_value(entry.value)

    def put_alias(self, project: str, name: str, alias: Alias, *, new: bool) -> Alias:
        """Adds an alias, or changes it."""
        self.get(project, name)
        self.get(project, name, alias.version)
        if new and self.store.get(f"function-aliases/{project}/{name}/{alias.name}") is not None:
            raise conflict(f"Alias already exists: {arn_of(name, alias.name)}")
        if new and self.store.count(f"function-aliases/{project}/{name}/") >= MOST_ALIASES:
            raise FunctionError("AliasLimitExceededException", f"A function has at most {MOST_ALIASES} aliases")
        self._check_weights(project, name, alias)
        alias = replace(alias, revision=str(uuid.uuid4()))
        self.store.transact({f"function-aliases/{project}/{name}/{alias.name}": alias.as_value()})
        self.changed(project, name)
        return alias

    def _check_weights(self, project: str, name: str, alias: Alias) -> None:
        if not alias.weights:
            return
        if len(alias.weights) > 1:
            raise invalid("Number of items in AdditionalVersionWeights cannot be greater than 1")
        ((version, weight),) = alias.weights.items()
        if LATEST in (alias.version, version):
            raise invalid("$LATEST is not supported for an alias pointing to more than 1 version")
        if version == alias.version:
            raise invalid(f"Invalid function version {version}. Function version {version} is already included in routing configuration.")
        if not 0 <= weight <= 1:
            raise invalid("Weight values must be between 0.0 and 1.0")
        self.get(project, name, version)

    def remove_alias(self, project: str, name: str, alias: str) -> None:
        """Removes an alias, with what was set for it."""
        writes: dict[str, Any] = {
            f"{family}/{project}/{name}/{alias}": None
            for family in ("function-aliases", "function-provisioned", "function-policies", "function-events", "function-urls")
        }
        url = self.store.get(f"function-urls/{project}/{name}/{alias}")
        if url is not None:
            writes[f"function-url-ids/{url.value['id']}"] = None
        self.store.transact(writes)
        self.changed(project, name)

    def check_qualifier(self, project: str, name: str, qualifier: str | None) -> None:
        """Refuses what names neither a version nor an alias of a function."""
        self.get(project, name)
        if qualifier is not None and qualifier != LATEST:
            if qualifier.isdigit():
                self.get(project, name, qualifier)
            elif self.store.get(f"function-aliases/{project}/{name}/{qualifier}") is None:
                raise missing(f"Function not found: {arn_of(name, qualifier)}")

    def pick(self, project: str, name: str, qualifier: str | None) -> Function:
        """The version that a call is for; an alias with weights chooses each time anew."""
        if qualifier is None or qualifier == LATEST or qualifier.isdigit():
            return self.get(project, name, qualifier or LATEST)
        entry = self.store.get(f"function-aliases/{project}/{name}/{qualifier}")
        if entry is None:
            raise missing(f"Function not found: {arn_of(name, qualifier)}")
        return self.get(project, name, _chosen(Alias.from_value(entry.value)))

    # What the data plane asks for.

    def is_current(self, function: Function) -> bool:
        """Whether that is still what the store has."""
        entry = self.store.get(_key(function.project, function.name, function.version))
        return entry is not None and entry.value["revision"] == function.revision

    def event_config(self, function: Function, qualifier: str | None = None) -> EventConfig:
        """What becomes of calls that nobody waits for; what is set for an alias goes before what is set for the version."""
        for each in (qualifier, function.version):
            entry = None if each is None else self.store.get(f"function-events/{function.project}/{function.name}/{each}")
            if entry is not None:
                return EventConfig.from_value(entry.value)
        return EventConfig()

    def reserved(self, project: str, name: str) -> int | None:
        """How many calls of a function, of all its versions together, may be under way at a time; none is no limit of its own."""
        entry = self.store.get(f"function-reserved/{project}/{name}")
        return None if entry is None else int(entry.value["limit"])

    def provisioned(self, project: str, name: str) -> dict[str, int]:
        """How many instances of which version are to be kept ready."""
        prefix = f"function-provisioned/{project}/{name}/"
        result: dict[str, int] = {}
        for entry in self.store.range(prefix):
            qualifier = entry.key.removeprefix(prefix)
            version = qualifier if qualifier.isdigit() else self.alias(project, name, qualifier).version
            result[version] = result.get(version, 0) + int(entry.value["instances"])
        return result


def check_revision(current: str, expected: str | None) -> None:
    """Refuses a change that was decided on something that has changed meanwhile."""
    if expected is not None and expected != current:
        message = (
            "The Revision Id provided does not match the latest Revision Id. "
            "Call the GetFunction/GetAlias API to retrieve the latest Revision Id"
        )
        raise FunctionError("PreconditionFailedException", message)


def _compared(function: Function) -> dict[str, Any]:
    value = function.as_value()
    for name in _NOT_COMPARED:
        del value[name]
    return value


def _chosen(alias: Alias) -> str:
    point = random.random()
    for version, weight in alias.weights.items():
        if point < weight:
            return version
        point -= weight
    return alias.version


def _key(project: str, name: str, version: str) -> str:
    return f"functions/{project}/{name}" if version == LATEST else f"function-versions/{project}/{name}/{version.zfill(12)}"
