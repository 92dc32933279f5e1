"""Settings of the sandbox."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class SandboxSettings(BaseModel):
    """The sandbox in which the code agent runs programs that a model wrote."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = False
    """Whether the code agent runs programs. False: no program is run."""
    wall_s: float = Field(default=5, gt=0, le=60)
    """Maximum duration of a program; then it is killed."""
    cpu_s: int = Field(default=4, ge=1, le=60)
    """Maximum CPU time of a program, in seconds; then it is killed."""
    memory_mb: int = Field(default=256, ge=64, le=16_384)
    """Maximum address space of a program, in MB."""
    files_mb: int = Field(default=8, ge=1, le=1_024)
    """Maximum size of all files that a program writes, in MB. They are held in memory beside `memory_mb`."""
    output_bytes: int = Field(default=16_384, ge=256, le=262_144)
    """Maximum output of a program; more ends it."""
    concurrency: int = Field(default=2, ge=1, le=64)
    """Maximum programs in progress in this process; others wait."""
