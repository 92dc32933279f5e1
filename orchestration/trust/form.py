"""Whether an answer meets the form that its caller asked for, as far as its top tells."""

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
    """None where there is no form, or one that is not looked at. A schema's deeper levels are not either:
    some take for ever."""
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
    return _is_of(value, guide.json_schema.get("type")) and _has(value, guide.json_schema.get("required"))


def _is_of(value: Any, said: Any) -> bool:
    named = [each for each in (said if isinstance(said, list) else [said]) if isinstance(each, str)]
    kinds = [_TYPES[each] for each in named if each in _TYPES]
    if not kinds:
        return True
    if isinstance(value, bool):
        return bool in kinds
    return any(isinstance(value, kind) for kind in kinds)


def _has(value: Any, required: Any) -> bool:
    if not isinstance(value, dict) or not isinstance(required, list):
        return True
    return all(name in value for name in required if isinstance(name, str))
