"""Settings of the tools that agents use."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ToolSettings(BaseModel):
    """Limits of every use of a tool, whichever tool it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: int = Field(default=16, ge=1, le=256)
    """Uses at the same time in this process, of each role."""
    max_waiting: int = Field(default=64, ge=0, le=4_096)
    """Uses of each role that may wait for others; one more is refused with `Overloaded`."""
    timeout_s: float = Field(default=30, gt=0, le=600)
    max_arguments_bytes: int = Field(default=65_536, ge=256, le=524_288)
    """Size of the arguments as JSON; larger ones are refused."""
    max_result_bytes: int = Field(default=131_072, ge=1_024, le=524_288)
    """Size of the text and of the data of a result, each. Longer text is cut and says so; larger data is an
    error."""
