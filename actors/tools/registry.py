"""Who can use what: the tools of each role in this process, used within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

from pydantic_core import PydanticSerializationError, to_json

from actors.runtime.failures import wrap_unexpected_errors
from actors.tools.base import LocalTool, ToolProvider
from actors.tools.settings import ToolSettings
from orchestration.errors import InternalError, InvalidRequest, OrchestraError
from orchestration.messages import Tool, ToolResult

JSON_BYTES = 6
"""Of one byte of text in JSON at most, which is a control character's."""


class _Held:
    """A single hand as a box of one tool."""

    def __init__(self, hand: LocalTool) -> None:
        self.hand = hand

    @property
    def ready(self) -> bool:
        return True

    async def tools(self) -> tuple[Tool, ...]:
        return (self.hand.tool,)

    async def use(self, tool: str, arguments: dict[str, Any]) -> ToolResult:
        return await self.hand.use(arguments)

    async def close(self) -> None:
        """A hand holds nothing open."""


class ToolRegistry:
    """The tools of this process, given to roles before the agents start."""

    def __init__(self, settings: ToolSettings | None = None) -> None:
        self.settings = settings or ToolSettings()
        self._boxes: dict[str, list[ToolProvider]] = {}

    @property
    def roles(self) -> Collection[str]:
        """Those that have been given anything."""
        return self._boxes.keys()

    def register(self, role: str, hand: LocalTool) -> None:
        """Let `role` use one tool of ours."""
        self.register_provider(role, _Held(hand))

    def register_provider(self, role: str, box: ToolProvider) -> None:
        """Let `role` use whatever is in the box. Of two tools of one name that given first counts."""
        self._boxes.setdefault(role, []).append(box)

    def ready(self, role: str) -> bool:
        """Whether `role` may have any tools here."""
        return any(box.ready for box in self._boxes.get(role, ()))

    async def tools(self, role: str) -> tuple[Tool, ...]:
        """What `role` can use now."""
        offered = await asyncio.gather(*(box.tools() for box in self._boxes.get(role, ())))
        found: dict[str, Tool] = {}
        for tool in (tool for tools in offered for tool in tools):
            found.setdefault(tool.name, tool)
        return tuple(found.values())

    async def use(self, role: str, tool: str, arguments: dict[str, Any]) -> ToolResult:
        """What came of it. A tool that takes too long or fails in an unforeseen way is the result's `error`.

        Raises `InvalidRequest` for a tool that the role does not have, or arguments that are too large.
        """
        size, limit = len(to_json(arguments)), self.settings.max_arguments_bytes
        if size > limit:
            raise InvalidRequest(
                f"arguments of {size} bytes for {tool!r} exceed max_arguments_bytes {limit}",
                param="arguments",
            )
        box = await self._box(role, tool)
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                with wrap_unexpected_errors(tool, "tool"):  # it is somebody's plug-in
                    result = self._bounded(tool, await box.use(tool, arguments))
            return result
        except TimeoutError:
            return ToolResult(error=f"{tool} took longer than timeout_s {self.settings.timeout_s:g}")
        except InternalError as error:
            return ToolResult(error=error.message[:500])
        except OrchestraError as error:
            return ToolResult(error=f"{tool}: {error.message}")

    async def close(self) -> None:
        """Let go of all boxes, each once."""
        boxes = {id(box): box for boxes in self._boxes.values() for box in boxes}
        await asyncio.gather(*(box.close() for box in boxes.values()))

    async def _box(self, role: str, tool: str) -> ToolProvider:
        names: list[str] = []
        for box in self._boxes.get(role, ()):
            offered = [each.name for each in await box.tools()]
            if tool in offered:
                return box
            names += offered
        raise InvalidRequest(
            f"{role} has no tool {tool!r}; its tools: {', '.join(names) or 'none'}", param="tool"
        )

    def _bounded(self, tool: str, result: ToolResult) -> ToolResult:
        """The result as it fits into a message."""
        limit = self.settings.max_result_bytes
        try:
            data, size = result.data, len(to_json(result.data))
            if size > limit and isinstance(data, list) and all(isinstance(each, dict) for each in data):
                data = _fitting(data, limit)
        except PydanticSerializationError as error:
            return ToolResult(error=f"{tool} gave data that is no JSON: {error}"[:500])
        if size > limit and (data is result.data or not data):
            return ToolResult(error=f"{tool} gave {size} bytes of data, more than max_result_bytes {limit}")
        return result.model_copy(
            update={"data": data, "text": _cut(result.text, limit), "error": _cut(result.error, limit // 4)}
        )


def _fitting(items: list[Any], limit: int) -> list[Any]:
    """As many objects of a list, such as passages, as fit into `limit` bytes of JSON, from the first on. The
    one that does not fit whole is there with its longest text cut, so that something always is."""
    kept: list[Any] = []
    left = limit - 2
    for item in items:
        left -= len(to_json(item)) + 1
        texts = {name: value for name, value in item.items() if isinstance(value, str)} if item else {}
        if left < 0 and texts:
            longest = max(texts, key=lambda name: len(texts[name]))
            room = len(to_json(texts[longest])) + left
            text = (
                texts[longest].encode(errors="replace")[: max(0, room) // JSON_BYTES].decode(errors="ignore")
            )
            item, left = item | {longest: text}, 0 if text else left
        if left < 0:
            break
        kept.append(item)
    return kept


def _cut(text: str, limit: int) -> str:
    """`text`, or what fits into `limit` bytes of UTF-8 with a note of how much is missing. Halves of
    characters, which cannot be sent, become question marks."""
    encoded = text.encode(errors="replace")
    if len(encoded) <= limit:
        return encoded.decode()
    kept = encoded[: limit - 64].decode(errors="ignore")
    return f"{kept}\n[… {len(encoded) - len(kept.encode())} bytes left out]"
