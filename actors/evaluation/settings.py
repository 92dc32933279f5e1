"""The settings of evaluations."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from orchestration.evaluation.leaderboard import Price


class EvaluationSettings(BaseModel):
    """`orchestra evaluate`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prices: dict[str, Price] = Field(default_factory=dict)
    """Prices by model: `[evaluation.prices."NAME"]` with `input` and `output`. A model without a price has no
    cost in the table."""
    attempts: int = Field(default=5, ge=1, le=20)
    """Maximum attempts for a question that the cluster refuses with 429 or 503."""
    max_pause_s: float = Field(default=30, gt=0, le=600)
    """Maximum pause between two attempts. The first pause is the `Retry-After` of the answer, or 1 s; each
    next one is twice as long."""
