"""How a dispatcher waits and retries."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class DispatcherSettings(BaseModel):
    """Limits and times of one dispatcher."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_alive_s: float = Field(default=5, gt=0)
    """How often a message at work is kept from redelivery: a third of the consumers' ack_wait."""
    attempts: int = Field(default=3, ge=1, le=10)
    """Nodes tried for one generation while nothing of its answer has been written."""
    busy_pause_s: float = Field(default=0.1, gt=0)
    """Before a generation that every node refused as busy is offered again."""
    pulled_ahead: int = Field(default=16, ge=0)
    """Generations of each model and priority that may wait here, so that a slot that becomes free is filled
    at once and by the most urgent; at most half of the slots."""
    remembered_cancels: int = Field(default=10_000, ge=1)
    max_models: int = Field(default=500, ge=1)
    """Models whose queues are served; three consumers each."""
    drain_timeout_s: float = Field(default=30, gt=0)
