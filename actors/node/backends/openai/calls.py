"""The tool calls of a streamed answer, gathered from the parts in which they come."""

from __future__ import annotations

from secrets import token_hex
from typing import Any

from orchestration.messages import ToolCall

MOST = 128
MOST_CHARACTERS = 262_144
"""Of all their arguments together."""


class Calls:
    """Parts of one call have its `index`; the first one has its id and name."""

    def __init__(self) -> None:
        self._parts: dict[int, dict[str, str]] = {}
        self._size = 0

    def __bool__(self) -> bool:
        return bool(self._parts)

    def take(self, deltas: Any) -> None:
        """Raises `ValueError` or `TypeError` for what is no list of parts, or is too much."""
        if not isinstance(deltas, list):
            raise TypeError("tool_calls that are no list")
        for number, delta in enumerate(deltas):
            index = delta.get("index", number)
            if not isinstance(index, int) or not 0 <= index < MOST:
                raise ValueError(f"a tool call of number {index!r}")
            call = self._parts.setdefault(index, {"id": "", "name": "", "arguments": ""})
            function = delta.get("function") or {}
            call["id"] = call["id"] or str(delta.get("id") or "")
            call["name"] = call["name"] or str(function.get("name") or "")
            part = function.get("arguments") or ""
            if not isinstance(part, str):
                raise TypeError("arguments that are no text")
            call["arguments"] += part
            self._size += len(part)
            if self._size > MOST_CHARACTERS:
                raise ValueError(f"tool calls of more than {MOST_CHARACTERS} characters")

    def whole(self) -> tuple[ToolCall, ...]:
        """Those that have a name, in their order."""
        return tuple(
            ToolCall(id=call["id"] or f"call_{token_hex(12)}", name=call["name"], arguments=call["arguments"])
            for _, call in sorted(self._parts.items())
            if call["name"]
        )
