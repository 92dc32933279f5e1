"""The settings of how `orchestra/auto` learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, field_validator

from orchestration.query_analysis.features import KINDS, Kind

MAX_QUALITIES = 1_000
"""Maximum number of models in `quality`."""


class LearningSettings(BaseModel):
    """The pattern `auto`, which chooses how to answer a question."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    learn: bool = True
    """Whether `auto` uses the results of earlier runs and adds to them. False: it always takes the built-in
    choice for a kind of question, and feedback finds no run."""
    explore: float = Field(default=0.05, ge=0, le=1)
    """Share of runs that try another way to answer than the best known one. Ways with worse results are tried
    less often."""
    cost_weight: float = Field(default=0.15, ge=0, le=1)
    """Weight of cost against quality (0 to 1): what is subtracted from the quality of a run of 4,000 tokens
    and 60 seconds. Between models a fifth of it."""
    flush_s: float = Field(default=2, gt=0, le=60)
    """Time between two writes of this process' results to the record that all agents share."""
    quality: dict[str, float | dict[Kind, float]] = Field(default_factory=dict)
    """Share of right answers of a model, between 0 and 1, for all kinds of question or by kind: `"gpt-4o*" =
    0.9`, `"qwen2.5-coder*" = {code = 0.85}`. Names may have `*` and `?`. Other models start from published
    figures; results of runs are added to both."""

    @field_validator("quality", mode="before")
    @classmethod
    def _read(cls, value: object) -> dict[str, float | dict[str, float]]:
        if not isinstance(value, Mapping):
            raise ValueError('must be a table of models, such as "gpt-4o*" = 0.9')
        if len(value) > MAX_QUALITIES:
            raise ValueError(f"{len(value)} models, but the limit is {MAX_QUALITIES}; use names with *")
        return {str(model): _quality(str(model), quality) for model, quality in value.items()}


def _quality(model: str, value: object) -> float | dict[str, float]:
    if not model.strip():
        raise ValueError("the name of a model is empty")
    if not isinstance(value, Mapping):
        return _share(value, f"the quality of {model!r}")
    for kind in value:
        if kind not in KINDS:
            raise ValueError(
                f"unknown kind of question {kind!r} for {model!r}; allowed: {', '.join(KINDS)}. "
                "Put the name of a model with a dot in quotes"
            )
    return {kind: _share(share, f"the quality of {model!r} at {kind}") for kind, share in value.items()}


def _share(value: Any, what: str) -> float:
    try:
        share = float("nan" if isinstance(value, bool) else value)
    except (TypeError, ValueError):
        share = float("nan")
    if not 0 < share < 1:
        raise ValueError(f"{what} is {value!r}; it must be above 0 and below 1, such as 0.8")
    return share
