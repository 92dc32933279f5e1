"""Tools: what agents use, what callers offer to models, and what models want called."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from orchestration.wire import Wire


class Tool(Wire):
    """What an agent can use, or a caller offers to a model: `parameters` is the JSON schema of its arguments,
    an object. `strict` is the caller's wish that they follow it, for backends that leave the choice."""

    name: str = Field(min_length=1, max_length=128)
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool | None = None


class ToolCall(Wire):
    """What a model wants called: a function that the caller offered. `arguments` is JSON as the model wrote
    it, or a part of it where the answer was cut off."""

    id: str
    name: str
    arguments: str


class ToolOffer(Wire):
    """Functions that a model may call (`auto`), or must: any (`required`), or the one of that `name`."""

    tools: tuple[Tool, ...]
    choice: Literal["auto", "required", "named"] = "auto"
    name: str = ""
    parallel: bool | None = None
    """Whether it may call several at once; None leaves it to the backend."""

    @property
    def chosen(self) -> tuple[Tool, ...]:
        """Those that may be called."""
        return tuple(tool for tool in self.tools if self.choice != "named" or tool.name == self.name)


class ToolResult(Wire):
    """What came of using a tool: `text` for a model, `data` (JSON) for programs. `error` says why it did not
    work, for both; it is '' when it did."""

    text: str = ""
    data: Any = None
    error: str = ""
