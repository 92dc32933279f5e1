"""The interface of a tool, for those who write one.

class Dice:
    tool = Tool(name="dice", description="throw a dice", parameters={"type": "object", "properties": {}})

    async def use(self, arguments: dict[str, Any]) -> ToolResult:
        return ToolResult(text=str(randint(1, 6)))

tools.register("reasoning", Dice())
"""

from __future__ import annotations

from typing import Any, Protocol

from orchestration.messages import Tool, ToolResult


class LocalTool(Protocol):
    """One tool of this process. It may be used several times at once."""

    @property
    def tool(self) -> Tool: ...

    async def use(self, arguments: dict[str, Any]) -> ToolResult:
        """Use the tool. Wrong arguments, and failures of the work, are the result's `error`. The use is
        cancelled after `ToolSettings.timeout_s`, and must leave nothing behind then."""


class ToolProvider(Protocol):
    """A source of tools that are defined elsewhere, such as an MCP server. Tools may come and go."""

    @property
    def ready(self) -> bool:
        """Whether it can have tools. Until then steps go to agents of other processes; once it is, it
        stays so."""

    async def tools(self) -> tuple[Tool, ...]:
        """The tools that can be used now: none while their source is unreachable. Never raises."""

    async def use(self, tool: str, arguments: dict[str, Any]) -> ToolResult:
        """As `LocalTool.use`; an unreachable source is an `error` too."""

    async def close(self) -> None:
        """Release what the tools run on."""
