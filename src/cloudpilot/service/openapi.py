"""The description of our own API, made of the same table as its routes."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from cloudpilot import __version__
from cloudpilot.service.api_models import FUNCTION_NAME, NAME, Error

if TYPE_CHECKING:
    from cloudpilot.service.api import Operation

_REFUSALS = {
    "400": "Malformed or contradictory",
    "401": "No API key, or an unknown one",
    "403": "The key's role may not do this",
    "404": "There is no such thing",
    "409": "There is such a thing already, or something stands against it",
    "413": "Too long",
    "429": "A limit",
    "500": "A fault of the service",
    "501": "Not supported",
    "503": "Not now",
    "504": "A deadline passed",
    "507": "No room left",
}


def describe(operations: list[Operation]) -> dict[str, Any]:
    """The OpenAPI document."""
    models: set[type[BaseModel]] = {Error}
    for operation in operations:
        models |= {each for each in (operation.body, operation.query, operation.answer) if _is_model(each)}  # type: ignore[misc]
    ordered = sorted(models, key=lambda model: model.__name__)
    references, definitions = models_json_schema([(model, "validation") for model in ordered], ref_template="#/components/schemas/{model}")
    schemas = {model: references[model, "validation"] for model in ordered}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Cloudpilot", "version": __version__, "description": "Sandboxes over HTTP."},
        "paths": paths,
        "components": {
            "schemas": definitions["$defs"],
            "securitySchemes": {"key": {"type": "apiKey", "in": "header", "name": "X-API-Key"}},
        },
        "security": [{"key": []}],
    }


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _operation(operation: Operation, schemas: dict[type[BaseModel], Any]) -> dict[str, Any]:
    names = re.findall(r"\{(\w+)\}", operation.path)
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string", "pattern": _pattern(name)}} for name in names]
    if operation.query is not None:
        schema = operation.query.model_json_schema()
        required = schema.get("required", [])
        parameters += [
            {"name": name, "in": "query", "required": name in required, "schema": each} for name, each in schema["properties"].items()
        ]
    result: dict[str, Any] = {
        "operationId": operation.handler.__name__.lstrip("_"),
        "summary": operation.summary,
        "description": f"Needs the role `{operation.role}`.",
        "parameters": parameters,
        "responses": {str(operation.status): _success(operation, schemas)},
    }
    error = {"application/json": {"schema": schemas[Error]}}
    result["responses"] |= {status: {"description": text, "content": error} for status, text in _REFUSALS.items()}
    if operation.body is not None:
        result["requestBody"] = {"required": True, "content": {"application/json": {"schema": schemas[operation.body]}}}
    elif operation.raw:
        result["requestBody"] = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
    return result


def _pattern(name: str) -> str:
    return FUNCTION_NAME if name == "function" else NAME


def _success(operation: Operation, schemas: dict[type[BaseModel], Any]) -> dict[str, Any]:
    answer = operation.answer
    if answer is None:
        return {"description": "Done"}
    if not _is_model(answer):
        return {"description": "The contents", "content": {operation.media_type: {"schema": {"type": "string", "format": "binary"}}}}
    return {"description": "Done", "content": {"application/json": {"schema": schemas[answer]}}}  # type: ignore[index]
