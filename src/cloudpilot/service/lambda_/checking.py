"""Requests checked by type. What is wrong is told in the sentences that AWS has for it, which people search the web for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cloudpilot.functions.errors import FunctionError, invalid

if TYPE_CHECKING:
    from collections.abc import Mapping

_LONGEST_VALUE = 100
"""Characters of a wrong value that are repeated to its sender."""


class Given(BaseModel):
    """What clients send: unknown fields are left alone, since newer clients know more."""

    model_config = ConfigDict(extra="ignore", strict=True, populate_by_name=True)


M = TypeVar("M", bound=Given)


def parse(model: type[M], text: bytes) -> M:
    """A body as its type."""
    try:
        return model.model_validate_json(text or b"{}")
    except ValidationError as error:
        raise _refusal(error) from None


def parse_query(model: type[M], query: Mapping[str, str]) -> M:
    """A query string as its type."""
    try:
        return model.model_validate(dict(query), strict=False)
    except ValidationError as error:
        raise _refusal(error) from None


def constraint(value: object, field: str, words: str) -> FunctionError:
    """A value that breaks a rule, in AWS's sentence."""
    shown = str(value)
    shown = shown if len(shown) <= _LONGEST_VALUE else shown[: _LONGEST_VALUE - 1] + "…"
    return invalid(f"1 validation error detected: Value '{shown}' at '{field}' failed to satisfy constraint: Member must {words}")


_WORDS = {
    "greater_than_equal": lambda about: f"have value greater than or equal to {about['ge']}",
    "less_than_equal": lambda about: f"have value less than or equal to {about['le']}",
    "string_too_short": lambda about: f"have length greater than or equal to {about['min_length']}",
    "string_too_long": lambda about: f"have length less than or equal to {about['max_length']}",
    "too_short": lambda about: f"have length greater than or equal to {about['min_length']}",
    "too_long": lambda about: f"have length less than or equal to {about['max_length']}",
    "string_pattern_mismatch": lambda about: f"satisfy regular expression pattern: {about['pattern']}",
    "literal_error": lambda about: f"satisfy enum value set: [{about['expected'].replace(' or ', ', ').replace(chr(39), '')}]",
}


def _refusal(error: ValidationError) -> FunctionError:
    first = error.errors(include_url=False)[0]
    if first["type"] in ("json_invalid", "json_type"):
        return FunctionError("InvalidRequestContentException", f"Could not parse request body into json: {first['msg']}")
    parts = [str(part) for part in first["loc"]]
    field = ".".join(part[:1].lower() + part[1:] for part in parts)
    if first["type"] == "missing":
        return constraint("null", field, "not be null")
    words = _WORDS.get(first["type"])
    if words is None:
        return invalid(f"{field}: {first['msg']}" if field else first["msg"])
    value: Any = first["input"]
    return constraint("null" if value is None else value, field, words(first.get("ctx", {})))
