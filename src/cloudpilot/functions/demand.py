"""How a function is called: how many calls are under way, how many may be, what its gaps were. All its versions count together."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cloudpilot.functions.errors import FunctionError
from cloudpilot.functions.keep_alive import History
from cloudpilot.functions.records import LATEST

if TYPE_CHECKING:
    from cloudpilot.functions.registry import Registry

MOST_CALLS = 1000
"""Calls of a project that are served or wait, functions with a limit of their own left out; as Lambda's limit of an account."""
_PREFIX = "function-gaps/"


class Demand:
    """One function's calls.

    Attributes:
        project: Whose it is.
        name: Its name.
        under_way: Calls that are served or wait.
        reserved: How many there may be; none if it shares the project's limit.
        history: Its gaps.
        version: The version that was called last.
        last_end: When its last call ended, by the monotonic clock; none if one is under way, or there was none.
        changed: Whether the store does not know the history yet.
    """

    __slots__ = ("_project", "changed", "history", "last_end", "name", "project", "reserved", "under_way", "version")

    def __init__(self, project: str, name: str, counts: dict[str, int], reserved: int | None) -> None:
        self.project = project
        self.name = name
        self.under_way = 0
        self.reserved = reserved
        self.history = History()
        self.version = LATEST
        self.last_end: float | None = None
        self.changed = False
        self._project = counts

    def enter(self, version: str) -> None:
        """A call comes for that version."""
        if self.reserved is not None:
            if self.under_way >= self.reserved:
                raise FunctionError("TooManyRequestsException", "Rate Exceeded.", "ReservedFunctionConcurrentInvocationLimitExceeded")
        elif self._project.get(self.project, 0) >= MOST_CALLS:
            raise FunctionError("TooManyRequestsException", "Rate Exceeded.", "ConcurrentInvocationLimitExceeded")
        self._project[self.project] = self._project.get(self.project, 0) + 1
        self.under_way += 1
        self.version = version
        if self.last_end is not None:
            self.history.add(time.monotonic() - self.last_end)
            self.last_end = None
            self.changed = True

    def leave(self) -> None:
        """A call is over."""
        self._project[self.project] -= 1
        self.under_way -= 1
        if self.under_way == 0:
            self.last_end = time.monotonic()


class Demands:
    """All functions' calls; what was learned of them is in the store."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._all: dict[tuple[str, str], Demand] = {}
        self._counts: dict[str, int] = {}

    def of(self, project: str, name: str) -> Demand:
        """One function's."""
        demand = self._all.get((project, name))
        if demand is None:
            demand = self._all[project, name] = Demand(project, name, self._counts, self._registry.reserved(project, name))
            entry = self._registry.store.get(f"{_PREFIX}{project}/{name}")
            if entry is not None:
                demand.history = History.from_value(entry.value)
                demand.version = str(entry.value["version"])
                passed = time.time() - float(entry.value["last"])
                if passed >= 0:
                    demand.last_end = time.monotonic() - passed
        return demand

    def known(self) -> list[Demand]:
        """Those of which something was learned."""
        found = []
        for entry in self._registry.store.range(_PREFIX):
            project, _, name = entry.key.removeprefix(_PREFIX).partition("/")
            found.append(self.of(project, name))
        return found

    def reread(self, project: str, name: str, *, exists: bool) -> None:
        """A function has changed, or is gone."""
        demand = self._all.get((project, name))
        if demand is not None:
            demand.reserved = self._registry.reserved(project, name)
        if not exists:
            self._registry.store.transact({f"{_PREFIX}{project}/{name}": None})
            if demand is not None and demand.under_way == 0:
                del self._all[project, name]

    def save(self) -> None:
        """Lets the store know what was learned."""
        wall, now = time.time(), time.monotonic()
        changed = [each for each in self._all.values() if each.changed]
        writes = {}
        for each in changed:
            last = wall if each.last_end is None else wall - (now - each.last_end)
            writes[f"{_PREFIX}{each.project}/{each.name}"] = {**each.history.as_value(), "version": each.version, "last": last}
        if writes:
            self._registry.store.transact(writes)
        for each in changed:
            each.changed = False
