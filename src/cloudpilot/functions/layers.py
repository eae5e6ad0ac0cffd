"""Layers: archives that functions see unpacked below `/opt`, in the order in which they name them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from cloudpilot.functions.errors import invalid, missing
from cloudpilot.functions.records import ACCOUNT, Layer

if TYPE_CHECKING:
    from cloudpilot.store import Store

MOST_LAYERS = 5
"""Layers of a function, as with Lambda."""
_ARN = re.compile(r"arn:aws[a-zA-Z-]*:lambda:[a-z0-9-]+:(\d{12}):layer:([a-zA-Z0-9-_]{1,140}):(\d+)")


class Layers:
    """All layers of the service."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def publish(self, project: str, name: str, **properties: Any) -> Layer:
        """Adds a version of a layer; numbers are not used again."""
        counter = f"layer-counters/{project}/{name}"
        entry = self._store.get(counter)
        number = 1 if entry is None else int(entry.value["next"])
        layer = Layer(name=name, project=project, version=number, **properties)
        self._store.transact({_key(project, name, number): layer.as_value(), counter: {"next": number + 1}})
        return layer

    def get(self, project: str, name: str, version: int) -> Layer:
        """One version of a layer."""
        entry = self._store.get(_key(project, name, version))
        if entry is None:
            raise missing("The resource you requested does not exist.")
        return Layer.from_value(entry.value)

    def versions(self, project: str, name: str) -> list[Layer]:
        """Versions of a layer, the newest first."""
        found = self._store.range(f"layers/{project}/{name}/", newest_first=True)
        return [Layer.from_value(entry.value) for entry in found]

    def newest(self, project: str) -> list[Layer]:
        """The newest version of each layer, by name."""
        by_name = {entry.value["name"]: Layer.from_value(entry.value) for entry in self._store.range(f"layers/{project}/")}
        return list(by_name.values())

    def remove(self, project: str, name: str, version: int) -> None:
        """Removes a version; functions that name it keep their copy of it only as long as another refers to the same archive."""
        self._store.transact({_key(project, name, version): None, policy_key(project, name, version): None})

    def of_arn(self, project: str, arn: str) -> Layer:
        """The version that an ARN names."""
        found = _ARN.fullmatch(arn)
        if found is None or found[1] != ACCOUNT:
            raise invalid(f"Layer version {arn} does not exist here. Name layers by the ARN that PublishLayerVersion answered")
        entry = self._store.get(_key(project, found[2], int(found[3])))
        if entry is None:
            raise invalid(f"Layer version {arn} does not exist.")
        return Layer.from_value(entry.value)

    def resolve(self, project: str, arns: list[str]) -> list[dict[str, Any]]:
        """What a function keeps of the layers that it names: a layer that is removed later still works for it."""
        if len(arns) > MOST_LAYERS:
            raise invalid(f"A function has at most {MOST_LAYERS} layers")
        layers = [self.of_arn(project, arn) for arn in arns]
        names = [layer.name for layer in layers]
        if len(set(names)) < len(names):
            raise invalid("Two different versions of the same layer are not allowed to be referenced in the same function.")
        return [{"arn": layer.arn, "digest": layer.digest, "size": layer.code_size} for layer in layers]


def policy_key(project: str, name: str, version: int) -> str:
    """Where the store has who may use a layer."""
    return f"layer-policies/{project}/{name}/{version:012d}"


def _key(project: str, name: str, version: int) -> str:
    return f"layers/{project}/{name}/{version:012d}"
