"""A list that a model wrote as a part of a JSON object, whole or cut off in the middle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def read_list(text: str, name: str) -> tuple[dict[str, Any], list[Any], bool]:
    """The object in `text`, the items of its list `name`, and whether the text was whole JSON. Of one that
    was cut off only the items that are complete are left.

    Raises `ValueError` where there is no object at all.
    """
    start = text.find("{")
    if start < 0:
        raise ValueError("it is not JSON")
    try:
        value, _ = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        return {}, list(_complete(text, name)), False
    items = value.get(name)
    return value, (items if isinstance(items, list) else []), True


def _complete(text: str, name: str) -> Iterator[Any]:
    """The complete objects of the list in a text that was cut off."""
    decoder = json.JSONDecoder()
    at = text.find("[", text.find(f'"{name}"'))
    while at >= 0:
        at = text.find("{", at)
        if at < 0:
            return
        try:
            value, at = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            return
        yield value
