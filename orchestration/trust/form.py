"""Checks whether an answer matches the output form that its caller asked for; of a JSON schema only the top
level."""

from __future__ import annotations

import json
from typing import Any

from orchestration.messages import GuidedDecoding

_TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": (int, float),
    "boolean": bool,
    "null": type(None),
}


def meets_form(text: str, guide: GuidedDecoding | None) -> bool | None:
    """Return None if the caller asked for no form, or for one that is not checked here. Deeper levels of a
    JSON schema are not checked, because some schemas take extremely long."""
    if guide is None:
        return None
    if guide.choice is not None:
        return text.strip() in guide.choice
    if guide.json_schema is None:
        return None
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return _has_type(value, guide.json_schema.get("type")) and _has_keys(
        value, guide.json_schema.get("required")
    )


def _has_type(value: Any, types: Any) -> bool:
    named = [each for each in (types if isinstance(types, list) else [types]) if isinstance(each, str)]
    kinds = [_TYPES[each] for each in named if each in _TYPES]
    if not kinds:
        return True
    if isinstance(value, bool):
        return bool in kinds
    return any(isinstance(value, kind) for kind in kinds)


def _has_keys(value: Any, required: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(required, list):
        return True
    return all(name in value for name in required if isinstance(name, str))
