"""Functions as clients name them: by name, by parts of their ARN, or by all of it; with a version or an alias, or without."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cloudpilot.functions.errors import invalid, missing
from cloudpilot.functions.records import ACCOUNT, LATEST, arn_of
from cloudpilot.service.lambda_.checking import constraint

LONGEST_NAME = 64
_FUNCTION = re.compile(
    r"(?:(?:arn:aws[a-zA-Z-]*:lambda:)?(?:[a-z0-9]+(?:-[a-z0-9]+)+:)?(?:(\d{12}):)?function:)?"
    r"([a-zA-Z0-9-_]+)(?::(\$LATEST|[a-zA-Z0-9-_]+))?"
)
_WORDS = (
    "satisfy regular expression pattern: "
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?([a-z]{2}(-gov)?-[a-z]+-\d{1}:)?(\d{12}:)?(function:)?([a-zA-Z0-9-_]+)(:(\$LATEST|[a-zA-Z0-9-_]+))?"
)
_QUALIFIER = re.compile(r"\$LATEST|[a-zA-Z0-9-_$]{1,128}")
_LAYER = re.compile(r"(?:arn:aws[a-zA-Z-]*:lambda:[a-z0-9-]+:(\d{12}):layer:)?([a-zA-Z0-9-_]{1,140})")


@dataclass(frozen=True, slots=True)
class Named:
    """A function that a request names.

    Attributes:
        name: Its name.
        qualifier: Its version or alias, if one is named.
    """

    name: str
    qualifier: str | None = None

    @property
    def arn(self) -> str:
        """Its name as AWS has it."""
        return arn_of(self.name, self.qualifier)

    def unqualified(self) -> str:
        """Its name, where a version has no place."""
        if self.qualifier not in (None, LATEST):
            raise invalid(f"This operation takes the whole function: leave `:{self.qualifier}` out")
        return self.name


def function_named(text: str, qualifier: str | None = None) -> Named:
    """The function that a path names, and the qualifier that the path or the query has."""
    found = _FUNCTION.fullmatch(text)
    if found is None:
        raise constraint(text, "functionName", _WORDS)
    account, name, derived = found.groups()
    if len(name) > LONGEST_NAME:
        raise constraint(text, "functionName", f"have length less than or equal to {LONGEST_NAME}")
    if account not in (None, ACCOUNT):
        raise missing(f"Function not found: {text}")
    if qualifier is not None and not _QUALIFIER.fullmatch(qualifier):
        raise constraint(qualifier, "qualifier", r"satisfy regular expression pattern: \$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+")
    if derived is not None and qualifier not in (None, derived):
        raise invalid("The derived qualifier from the function name does not match the specified qualifier.")
    return Named(name, qualifier or derived)


def layer_named(text: str) -> str:
    """The name of the layer that a path names."""
    found = _LAYER.fullmatch(text)
    if found is None:
        words = r"satisfy regular expression pattern: (arn:[a-zA-Z0-9-]+:lambda:[a-zA-Z0-9-]+:\d{12}:layer:[a-zA-Z0-9-_]+)|[a-zA-Z0-9-_]+"
        raise constraint(text, "layerName", words)
    if found[1] not in (None, ACCOUNT):
        raise missing("The resource you requested does not exist.")
    return found[2]
