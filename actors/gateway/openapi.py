"""Describes the HTTP operations of a table for tools, as OpenAPI 3.1."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from actors.gateway.operation import Access, Operation
from orchestration.messages import ErrorBody

_REF = "#/components/schemas/{model}"


def openapi(operations: Sequence[Operation[Any]], title: str = "Orchestra") -> str:
    """The OpenAPI 3.1 description of the HTTP operations of a table, as JSON."""
    models: list[type[BaseModel]] = [ErrorBody, *(each.request for each in operations if each.has_body)]
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    defined: dict[str, Any] = dict(schemas["$defs"])
    paths: dict[str, dict[str, Any]] = {}
    for each in operations:
        defined |= each.request.model_json_schema(ref_template=_REF).get("$defs", {})
        paths.setdefault(each.route, {})[each.method.lower()] = _operation(each)
    description = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": "0", "description": "One LLM cluster of many machines."},
        "paths": paths,
        "components": {
            "schemas": dict(sorted(defined.items())),
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }
    return json.dumps(description, indent=1, ensure_ascii=False) + "\n"


def _operation(operation: Operation[Any]) -> dict[str, Any]:
    error = {
        "type": "object",
        "properties": {"error": {"$ref": _REF.format(model="ErrorBody")}},
    }
    made: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {
            "200": {"description": "OK"},
            "default": {"description": "An error", "content": {"application/json": {"schema": error}}},
        },
    }
    if operation.access is not Access.OPEN:
        roles = ["admin"] if operation.access is Access.ADMIN else []
        made["security"] = [{"key": roles}] + ([{}] if operation.access is Access.OPTIONAL_KEY else [])
    if operation.has_body:
        schema = {"$ref": _REF.format(model=operation.request.__name__)}
        made["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    elif parameters := _parameters(operation):
        made["parameters"] = parameters
    return made


def _parameters(operation: Operation[Any]) -> list[dict[str, Any]]:
    schema = operation.request.model_json_schema(ref_template=_REF)
    return [
        {
            "name": name,
            "in": "path" if f"{{{name}}}" in operation.route else "query",
            "required": f"{{{name}}}" in operation.route,
            "schema": {key: value for key, value in field.items() if key != "title"},
        }
        for name, field in schema.get("properties", {}).items()
    ]
