"""The reference of the operations: a page of tables, and the OpenAPI description."""

from __future__ import annotations

import json
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from actors.cli.reference.source import fields_of, one_line, table, type_name
from actors.gateway.operation import Access, Operation
from actors.gateway.operations import OPERATIONS
from orchestration.messages import ErrorBody

HEAD = """# HTTP and NATS operations

A gateway serves these operations. Over HTTP, parameters come from the path, from the JSON body of a POST, or
from the query of a GET; over NATS all are in the JSON body of the request. Errors have the codes of
[errors.md](errors.md).
[openapi.json](openapi.json) describes the HTTP side for tools.
"""
_REF = "#/components/schemas/{model}"


def page() -> str:
    """The page as Markdown."""
    rows = [
        (
            f"`{each.name}`",
            f"`{each.method} {each.route}`",
            f"`{each.subject}`" if each.subject else "",
            each.access.value,
            one_line(each.summary),
        )
        for each in OPERATIONS
    ]
    head = ("operation", "HTTP", "NATS subject", "access", "what it does")
    return f"{HEAD}\n{table(head, rows)}{''.join(_fields(each) for each in OPERATIONS)}"


def _fields(operation: Operation[Any]) -> str:
    rows = [
        (
            f"`{name}`",
            type_name(field.annotation),
            "yes" if field.is_required() and "." not in name else "",
            text,
        )
        for name, field, text in fields_of(operation.request)
        for needed in (field.is_required() and "." not in name,)
    ]
    rows.sort(key=lambda row: row[2] != "yes")
    if not rows:
        return ""
    about = one_line(operation.request.__doc__)
    fields = table(("field", "type", "required", "what it is"), rows)
    return f"\n## {operation.name}\n\n{about}\n\n{fields}"


def openapi() -> str:
    """The OpenAPI 3.1 description of the HTTP operations, as JSON."""
    models: list[type[BaseModel]] = [ErrorBody, *(each.request for each in OPERATIONS if each.has_body)]
    _, schemas = models_json_schema([(model, "validation") for model in models], ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for each in OPERATIONS:
        paths.setdefault(each.route, {})[each.method.lower()] = _operation(each)
    description = {
        "openapi": "3.1.0",
        "info": {"title": "Orchestra", "version": "0", "description": "One LLM cluster of many machines."},
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
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
        made["security"] = [{"key": []}] + ([{}] if operation.access is Access.OPTIONAL_KEY else [])
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
