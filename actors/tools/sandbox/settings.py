"""Settings of the sandbox."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SandboxSettings(BaseModel):
    """The sandbox is off by default: then no program that a model wrote is run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = False
    wall_s: float = Field(default=5, gt=0, le=60)
    """Seconds from the start of the program to its end."""
    cpu_s: int = Field(default=4, ge=1, le=60)
    """Seconds of CPU time."""
    memory_mb: int = Field(default=256, ge=64, le=16_384)
    """Address space of the program."""
    files_mb: int = Field(default=8, ge=1, le=1_024)
    """Size of all files in the program's own folder, which are held in memory beside `memory_mb`."""
    output_bytes: int = Field(default=16_384, ge=256, le=262_144)
    """Output that the program may print; more ends it."""
    concurrency: int = Field(default=2, ge=1, le=64)
    """Programs that run at the same time in this process; others wait."""
