"""What can be set of the tools that agents use."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ToolSettings(BaseModel):
    """Bounds of every use of a tool, whichever it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    timeout_s: float = Field(default=30, gt=0, le=600)
    max_arguments_bytes: int = Field(default=65_536, ge=256, le=524_288)
    """Of the arguments as JSON; more is refused."""
    max_result_bytes: int = Field(default=131_072, ge=1_024, le=524_288)
    """Of text and data each: text is cut there and says so, data beyond it is an error."""
