"""A small JSON value that a schema allows: for the echo backend, and for patterns tried without a model."""

from __future__ import annotations

from typing import Any

from orchestration.errors import InvalidGuide

_MAX_DEPTH = 32
_MAX_COUNT = 1000
_UNSUPPORTED = (
    "allOf",
    "not",
    "pattern",
    "format",
    "patternProperties",
    "if",
    "dependentRequired",
    "multipleOf",
)


def schema_instance(schema: dict[str, Any]) -> Any:
    """A value of `schema`, with the required fields only. Raises `InvalidGuide` for a schema that is wrong or
    uses an unsupported keyword."""
    try:
        return _instance(schema, schema, 0)
    except (AttributeError, IndexError, TypeError) as error:  # a keyword with a value of the wrong type
        raise InvalidGuide(f"not a JSON schema: {error}", param="guide") from error


def _instance(schema: Any, root: dict[str, Any], depth: int) -> Any:
    if schema is True or schema == {}:
        return {}
    if not isinstance(schema, dict) or depth > _MAX_DEPTH:
        raise InvalidGuide("a schema must be an object, and nested at most 32 deep", param="guide")
    for name in _UNSUPPORTED:
        if name in schema:
            raise InvalidGuide(f"unsupported keyword {name!r}: no value can be made for it", param="guide")
    if "$ref" in schema:
        return _instance(_resolve(schema["$ref"], root), root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for name in ("anyOf", "oneOf"):
        if schema.get(name):
            return _instance(schema[name][0], root, depth + 1)
    kind = schema.get("type") or ("object" if "properties" in schema else "string")
    if isinstance(kind, list):
        kind = kind[0]
    return _of_type(kind, schema, root, depth)


def _of_type(kind: Any, schema: dict[str, Any], root: dict[str, Any], depth: int) -> Any:
    match kind:
        case "object":
            properties = schema.get("properties", {})
            names = schema.get("required") or list(properties)
            return {name: _instance(properties.get(name, True), root, depth + 1) for name in names}
        case "array":
            first = schema.get("prefixItems", [])
            count = max(_count(schema, "minItems", 0), len(first))
            rest = [schema.get("items", True)] * (count - len(first))
            return [_instance(item, root, depth + 1) for item in [*first, *rest]]
        case "string":
            least, most = _count(schema, "minLength", 0), _count(schema, "maxLength", _MAX_COUNT)
            return "echo"[:most].ljust(least, "o")
        case "integer" | "number":
            return _number(schema)
        case "boolean":
            return False
        case "null":
            return None
    raise InvalidGuide(f"unknown type {kind!r} in a JSON schema", param="guide")


def _count(schema: dict[str, Any], name: str, default: int) -> int:
    """A length in the schema, at most 1,000 items or characters."""
    value = schema.get(name, default)
    if not isinstance(value, int) or value < 0 or (name.startswith("min") and value > _MAX_COUNT):
        raise InvalidGuide(f"{name} must be a number from 0 to {_MAX_COUNT}", param="guide")
    return value


def _number(schema: dict[str, Any]) -> int | float:
    """The allowed number nearest to 0, in steps of 1 from the bound."""
    low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
    high = schema.get("maximum", schema.get("exclusiveMaximum", 1) - 1)
    number: int | float = low if low > 0 else min(high, 0)
    return number


def _resolve(reference: Any, root: dict[str, Any]) -> Any:
    """The part of the schema that the reference `#/…` names."""
    if reference == "#":
        return root
    part: Any = root
    if not isinstance(reference, str) or not reference.startswith("#/"):
        raise InvalidGuide(f"{reference!r} points outside the schema", param="guide")
    for name in reference[2:].split("/"):
        if not isinstance(part, dict) or name not in part:
            raise InvalidGuide(f"{reference!r} points to nothing in the schema", param="guide")
        part = part[name]
    return part
