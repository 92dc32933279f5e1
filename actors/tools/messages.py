"""What the hands of an agent are told, and what they say."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from orchestration.messages import Tool, Wire


class AskTools(Wire):
    """Say what the role can use now."""


class ToolsOffered(Wire):
    """The role's tools, as of now."""

    tools: tuple[Tool, ...] = ()


class UseTool(Wire):
    """Use one of them; `arguments` should follow its schema. The answer is a `ToolResult`."""

    tool: str = Field(min_length=1, max_length=128)
    arguments: dict[str, Any] = Field(default_factory=dict)
