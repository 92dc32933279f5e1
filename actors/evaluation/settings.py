"""What can be set of evaluations."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from orchestration.evaluation.leaderboard import Price


class EvaluationSettings(BaseModel):
    """`[evaluation]`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prices: dict[str, Price] = Field(default_factory=dict)
    """Of models, by their names: `[evaluation.prices."NAME"]` with `input` and `output`, in any currency for
    a million tokens. Where a model has none, there is no cost in the table."""
    attempts: int = Field(default=5, ge=1, le=20)
    """How often a question is asked that a limit (429) or a lack of nodes (503) refuses."""
    max_pause_s: float = Field(default=30, gt=0, le=600)
    """Between two of them; the first pause is what the cluster says, or a second, and each next one is twice
    as long."""
