"""What can be set of how `orchestra/auto` learns."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class AutoSettings(BaseModel):
    """`[agents.auto]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learn: bool = True
    """Whether runs follow, and add to, the record of earlier ones; without it `auto` always takes what is
    thought best for a kind of question, and feedback finds no run."""
    explore: float = Field(default=0.05, ge=0, le=1)
    """The share of runs that try any way to answer, however bad its record is."""
    cost_weight: float = Field(default=0.15, ge=0, le=1)
    """What a run of 4,000 tokens and 60 seconds is marked down by, against good answers from 0 to 1."""
    flush_s: float = Field(default=2, gt=0, le=60)
    """How often what runs taught is added to the record that all agents share."""
