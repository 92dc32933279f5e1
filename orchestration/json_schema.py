"""JSON schemas of clients: moved into another schema, and checked for endless references."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote, unquote

from orchestration.errors import InvalidGuide

MAX_DEPTH = 64
"""Maximum nesting of a schema; a deeper one is refused before anything walks it."""

Schema = dict[str, Any]

_ONE = frozenset(
    (
        "additionalItems",
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "items",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    )
)
_LIST = frozenset(("allOf", "anyOf", "items", "oneOf", "prefixItems"))
_MAP = frozenset(
    ("$defs", "definitions", "dependencies", "dependentSchemas", "patternProperties", "properties")
)
_IDENTITY = ("$id", "id", "$anchor", "$dynamicAnchor", "$recursiveAnchor", "$schema", "$vocabulary")


def relocate(schema: Schema, place: str) -> Schema:
    """The schema with its references rewritten for its new place, a JSON pointer such as `#/$defs/tool`.

    `$ref: "#"` and pointers are prefixed with the place; `$id`, `$anchor` and similar, which have a meaning
    only at the root, are resolved and removed. Raises `InvalidGuide` for a reference out of the schema.
    """
    targets = _named_targets(schema)

    def rewrite(each: Schema) -> Schema:
        result = {
            key: value for key, value in each.items() if key not in _IDENTITY or isinstance(value, dict)
        }
        for key in ("$ref", "$dynamicRef", "$recursiveRef"):
            if isinstance(each.get(key), str):
                result.pop(key)
                result["$ref"] = place + _percent_encode(_pointer(each[key], targets))
        return result

    result: Schema = _map_schemas(schema, rewrite)
    return result


def resolve_references(schema: Schema) -> Schema:
    """The schema with every reference as a pointer from its root; see `relocate`."""
    result = relocate(schema, "#")
    return result | {"$schema": schema["$schema"]} if isinstance(schema.get("$schema"), str) else result


def check_references(schema: Schema) -> None:
    """Raise `InvalidGuide` if a reference has no target, or leads back to itself by references alone."""
    for each in subschemas(schema):
        seen: list[str] = []
        at: Any = each
        while isinstance(at, dict) and isinstance(at.get("$ref"), str) and at["$ref"].startswith("#"):
            ref = at["$ref"]
            if ref in seen:
                raise InvalidGuide(f"the reference {ref[:200]!r} leads back to itself", param="guide")
            seen.append(ref)
            if ref != "#" and not ref.startswith("#/"):
                break  # an anchor
            at = _follow(schema, ref)


def without_patterns(schema: Schema, usable: Callable[[str], bool]) -> tuple[Schema, list[str]]:
    """The schema without the regular expressions that are not `usable`, and those expressions."""
    removed: list[str] = []

    def change(each: Schema) -> Schema:
        pattern = each.get("pattern")
        if isinstance(pattern, str) and not usable(pattern):
            removed.append(pattern)
            each = {key: value for key, value in each.items() if key != "pattern"}
        patterned = each.get("patternProperties")
        if isinstance(patterned, dict) and (bad := [name for name in patterned if not usable(name)]):
            removed.extend(bad)
            rest = {name: value for name, value in patterned.items() if name not in bad}
            each = {key: value for key, value in each.items() if key != "patternProperties"}
            if rest:
                each["patternProperties"] = rest
        return each

    return _map_schemas(schema, change), removed


def without_free_names(schema: Schema) -> Schema:
    """The schema without each `propertyNames` that accepts any name, as tools write it for records. Names of
    an enum become optional properties."""

    def change(each: Schema) -> Schema:
        names = each.get("propertyNames")
        rest = {key: value for key, value in each.items() if key != "propertyNames"}
        if names in (True, {}, {"type": "string"}):
            return rest
        if isinstance(names, dict) and str(names.get("$ref", "")).startswith("#/"):
            names = _follow(schema, names["$ref"])
        names_listed = names.get("enum") if isinstance(names, dict) else None
        incompatible = rest.keys() & {"properties", "patternProperties", "allOf", "anyOf", "oneOf", "$ref"}
        if not names_listed or incompatible or rest.get("additionalProperties", True) is False:
            return each
        value = rest.get("additionalProperties", True)
        properties = {name: value for name in names_listed if isinstance(name, str)}
        return rest | {"properties": properties, "additionalProperties": False}

    result: Schema = _map_schemas(schema, change)
    return result


def subschemas(schema: Schema) -> Iterator[Schema]:
    """The schema and all schemas in it. Raises `InvalidGuide` below `MAX_DEPTH` levels."""
    pending: list[tuple[Any, int]] = [(schema, 0)]
    while pending:
        each, depth = pending.pop()
        if not isinstance(each, dict):
            continue
        if depth > MAX_DEPTH:
            raise InvalidGuide(f"the schema is nested more than {MAX_DEPTH} levels deep", param="guide")
        yield each
        pending.extend((inner, depth + 1) for inner in _inner(each))


def _inner(schema: Schema) -> Iterator[Any]:
    for key, value in schema.items():
        if key in _MAP and isinstance(value, dict):
            yield from value.values()
        elif key in _LIST and isinstance(value, list):
            yield from value
        elif key in _ONE:
            yield value


def _map_schemas(schema: Any, change: Callable[[Schema], Schema], depth: int = 0) -> Any:
    """The schema with `change` applied to it and to each schema in it."""
    if not isinstance(schema, dict):
        return schema
    if depth > MAX_DEPTH:
        raise InvalidGuide(f"the schema is nested more than {MAX_DEPTH} levels deep", param="guide")
    result: Schema = {}
    for key, value in change(schema).items():
        if key in _MAP and isinstance(value, dict):
            result[key] = {name: _map_schemas(inner, change, depth + 1) for name, inner in value.items()}
        elif key in _LIST and isinstance(value, list):
            result[key] = [_map_schemas(inner, change, depth + 1) for inner in value]
        elif key in _ONE:
            result[key] = _map_schemas(value, change, depth + 1)
        else:
            result[key] = value
    return result


def _named_targets(schema: Schema) -> dict[str, str]:
    """The pointers that `$id` and anchors name, relative to the root ("" is the root itself)."""
    found = {"": ""}
    pending: list[tuple[Any, str]] = [(schema, "")]
    while pending:
        each, at = pending.pop()
        if not isinstance(each, dict):
            continue
        for key in ("$anchor", "$dynamicAnchor"):
            if isinstance(each.get(key), str):
                found.setdefault("#" + each[key], at)
        for key in ("$id", "id"):
            if isinstance(each.get(key), str):
                found.setdefault(each[key].removesuffix("#"), at)
        for key, value in each.items():
            if (key in _MAP and isinstance(value, dict)) or (key in _LIST and isinstance(value, list)):
                pairs = value.items() if isinstance(value, dict) else enumerate(value)
                pending.extend((inner, f"{at}/{_escape(key)}/{_escape(str(name))}") for name, inner in pairs)
            elif key in _ONE:
                pending.append((value, f"{at}/{_escape(key)}"))
        if at.count("/") > 2 * MAX_DEPTH:
            raise InvalidGuide(f"the schema is nested more than {MAX_DEPTH} levels deep", param="guide")
    return found


def _pointer(reference: str, targets: dict[str, str]) -> str:
    """The target of a reference in its schema: "" for the root, else a pointer that begins with `/`."""
    if reference in targets:
        return targets[reference]
    base, _, fragment = reference.partition("#")
    if base in targets:
        if not fragment or fragment.startswith("/"):
            return targets[base] + fragment
        if "#" + fragment in targets:
            return targets["#" + fragment]
    raise InvalidGuide(f"the reference {reference[:200]!r} leads out of the schema", param="guide")


def _percent_encode(pointer: str) -> str:
    """Encode a pointer as part of a URI, which some schema generators omit."""
    return quote(unquote(pointer), safe="/~!$&'()*+,;=:@-._")


def _follow(schema: Schema, reference: str) -> Any:
    at: Any = schema
    for part in reference[2:].split("/") if len(reference) > 1 else ():
        name = unquote(part).replace("~1", "/").replace("~0", "~")
        if isinstance(at, dict) and name in at:
            at = at[name]
        elif isinstance(at, list) and name.isdecimal() and int(name) < len(at):
            at = at[int(name)]
        else:
            raise InvalidGuide(f"the reference {reference[:200]!r} leads to nothing", param="guide")
    return at


def _escape(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
