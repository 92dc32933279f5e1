"""Settings of the tools that agents use."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class ToolSettings(BaseModel):
    """Limits of every use of a tool, whichever tool it is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    concurrency: int = Field(default=16, ge=1, le=256)
    """Maximum calls in progress in this process, for each role."""
    max_waiting: int = Field(default=64, ge=0, le=4_096)
    """Maximum calls of each role that wait for another one to end; one more fails with `overloaded`."""
    timeout_s: float = Field(default=30, gt=0, le=600)
    """Timeout of one call."""
    max_arguments_bytes: int = Field(default=65_536, ge=256, le=524_288)
    """Maximum size of the arguments as JSON; larger ones are refused."""
    max_result_bytes: int = Field(default=131_072, ge=1_024, le=524_288)
    """Maximum size of the text of a result, and of its data. Longer text is cut and marked; larger data is an
    error."""
