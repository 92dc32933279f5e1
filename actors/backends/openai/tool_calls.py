"""Assembles the tool calls of a streamed answer from their deltas.

Servers deviate from the API here: deltas without an index, with `null` or a text for it, or all with 0; ids
once, in every delta or never; whole calls in one delta; arguments as an object.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

from actors.streams.characters import whole_characters
from orchestration.messages import ToolCall

MAX_CALLS = 128
MAX_CHARACTERS = 262_144
"""Maximum characters of all arguments together."""
MAX_PARSES = 2 * MAX_CALLS
"""Maximum attempts to parse arguments per answer, to see whether they are complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _CallDelta:
    """One normalised delta. `index` is None if it has no information. `whole` arguments replace earlier
    ones."""

    index: int | None
    id: str
    name: str
    arguments: str
    whole: bool

    @classmethod
    def of(cls, delta: Any, place: int | None) -> _CallDelta:
        """`place` is the delta's position in its event; it identifies the call if nothing else does. Raises
        `ValueError`, `TypeError` or `AttributeError` for an invalid delta."""
        function = delta.get("function") or {}
        call_id, name, arguments = (
            delta.get("id") or "",
            function.get("name") or "",
            function.get("arguments"),
        )
        if not isinstance(name, str):
            raise TypeError("a name that is not a string")
        whole = isinstance(arguments, dict) and bool(arguments)
        if isinstance(arguments, dict):
            arguments = json.dumps(arguments, ensure_ascii=False) if arguments else ""
        elif not isinstance(arguments or "", str):
            raise TypeError("arguments that are not a string")
        index = _index_of(delta.get("index"))
        if index is None and not call_id and not name:
            index = place
        return cls(index=index, id=str(call_id), name=name, arguments=arguments or "", whole=whole)


@dataclass(slots=True, eq=False)
class _PartialCall:
    index: int
    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """The arguments so far."""
        if len(self.arguments) > 1:
            self.arguments = ["".join(self.arguments)]
        return self.arguments[0] if self.arguments else ""

    def add(self, part: _CallDelta) -> None:
        self.id = self.id or part.id
        self.name = self.name or part.name
        if part.whole:
            self.arguments.clear()
        self.arguments.append(part.arguments)


class ToolCallAssembler:
    """A delta belongs to the call with its id, else with its index, else to the last one. A new id begins a
    new call; so do another function's name, and arguments after complete ones, regardless of the index."""

    def __init__(self) -> None:
        self._calls: list[_PartialCall] = []
        self._by_id: dict[str, _PartialCall] = {}
        self._by_index: dict[int, _PartialCall] = {}
        self._last: _PartialCall | None = None
        self._size = 0
        self._looks = 0

    def __bool__(self) -> bool:
        return bool(self._calls)

    def take(self, deltas: Any) -> None:
        """Add the deltas of an event. Raises `ValueError`, `TypeError` or `AttributeError` if invalid or too
        long."""
        if not isinstance(deltas, list):
            raise TypeError("tool_calls that are not a list")
        here: list[_PartialCall] = []
        for place, delta in enumerate(deltas):
            part = _CallDelta.of(delta, place if len(deltas) > 1 else None)
            call = self._find(part)
            if call is not None and part.id and part.id == call.id and part.arguments == call.text != "":
                continue  # some servers repeat the whole call at the end
            if call is None or (part.name and call in here) or self._begins_another(call, part):
                call = self._begin(part)
            here.append(call)
            self._size += len(part.arguments)
            if self._size > MAX_CHARACTERS:
                raise ValueError(f"tool calls of more than {MAX_CHARACTERS} characters")
            call.add(part)
            self._last = call
            if call.id:
                self._by_id.setdefault(call.id, call)
            if part.index is not None:
                self._by_index[part.index] = call

    def whole(self, *, cut: bool) -> tuple[ToolCall, ...]:
        """The calls that have a name, in order. Missing arguments become `{}` unless the answer was `cut`
        off. Missing and duplicate ids are replaced by new ones."""
        ids: set[str] = set()
        made = []
        for call in sorted(self._calls, key=lambda call: call.index):
            if not call.name:
                continue
            call_id = call.id if call.id and call.id not in ids else f"call_{token_hex(12)}"
            ids.add(call_id)
            made.append(
                ToolCall(
                    id=whole_characters(call_id),
                    name=whole_characters(call.name),
                    arguments=whole_characters(call.text) or ("" if cut else "{}"),
                )
            )
        return tuple(made)

    def _find(self, part: _CallDelta) -> _PartialCall | None:
        """The call that the delta seems to continue."""
        at_index = None if part.index is None else self._by_index.get(part.index)
        call = self._by_id.get(part.id)
        if call is not None and (at_index is not None or part.index is None or not part.name):
            return call
        return self._last if part.index is None else at_index

    def _begins_another(self, call: _PartialCall, part: _CallDelta) -> bool:
        if part.id and call.id and part.id != call.id:
            # some servers make an id for every part
            goes_on = call.name and not part.name and part.arguments
            return not goes_on or (part.arguments.lstrip().startswith("{") and self._is_whole(call))
        if not part.name or not call.name:
            return False
        return part.name != call.name or (part.arguments.lstrip().startswith("{") and self._is_whole(call))

    def _is_whole(self, call: _PartialCall) -> bool:
        """Whether the call's arguments are complete JSON."""
        if not call.text.rstrip().endswith("}") or self._looks == MAX_PARSES:
            return False
        self._looks += 1
        try:
            json.loads(call.text)
        except (ValueError, RecursionError):
            return False
        return True

    def _begin(self, part: _CallDelta) -> _PartialCall:
        if len(self._calls) == MAX_CALLS:
            raise ValueError(f"more than {MAX_CALLS} tool calls")
        index = part.index
        if index is None:
            index = max((call.index for call in self._calls), default=-1) + 1
        call = self._by_index[index] = _PartialCall(index)
        self._calls.append(call)
        return call


def _index_of(index: Any) -> int | None:
    """The index, also if sent as text; None for none."""
    if isinstance(index, str) and index.isascii() and index.strip().isdecimal():
        index = int(index)
    if isinstance(index, float) and index.is_integer():
        index = int(index)
    if index is None or index == "":
        return None
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < MAX_CALLS:
        raise ValueError(f"a tool call of number {index!r}")
    return index
