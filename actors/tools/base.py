"""What a hand is, for whoever makes one.

class Dice:
    tool = Tool(name="dice", description="throw a dice", parameters={"type": "object", "properties": {}})

    async def use(self, arguments: dict[str, Any]) -> ToolResult:
        return ToolResult(text=str(randint(1, 6)))

hands.give("reasoning", Dice())
"""

from __future__ import annotations

from typing import Any, Protocol

from orchestration.messages import Tool, ToolResult


class LocalTool(Protocol):
    """One tool of ours. It may be used by several at once."""

    @property
    def tool(self) -> Tool: ...

    async def use(self, arguments: dict[str, Any]) -> ToolResult:
        """What is wrong with the arguments, or goes wrong in the work, is the result's `error`. It is
        cancelled after `HandsSettings.timeout_s`, and must leave nothing behind then."""


class ToolProvider(Protocol):
    """Tools that somebody else defines, such as those of an MCP server; they may come and go."""

    @property
    def ready(self) -> bool:
        """Whether there can be tools in it. Until then others are asked, on other machines perhaps; once it
        is, it is asked for good."""

    async def tools(self) -> tuple[Tool, ...]:
        """Those that can be used now: none while they are out of reach. Never raises."""

    async def use(self, tool: str, arguments: dict[str, Any]) -> ToolResult:
        """As `LocalTool.use`; what is out of reach is an `error` too."""

    async def close(self) -> None:
        """Let go of what the tools run on."""
