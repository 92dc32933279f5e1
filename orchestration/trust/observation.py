"""What one run shows about models and arms (ways to answer)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from orchestration.messages import Wire

Source = Literal["user", "test", "judge", "vote"]
"""The origin of a judgement: a user rating; a check that cannot be wrong, such as passing tests or a
matching schema; a model that judges; the agreement of the voters among themselves."""


class VoterAnswer(Wire):
    """The answer of one model in a vote."""

    model: str
    group: int | None = Field(default=None, ge=0)
    """Models with the same answer have the same number: 0 is the answer of the run, other answers count from
    1. None if the answer could not be read."""
    followed: bool = False
    """Whether the model was asked only because others disagreed. Such questions are hard, so these answers
    say less about the model than answers to all questions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """One observation of a run."""

    source: Source = "vote"
    quality: float | None = None
    """How good `source` says the answer of the run is, from 0 (wrong) to 1 (right). None if nothing judged
    it."""
    weight: float = 1.0
    answers: Sequence[VoterAnswer] = ()
    """The answers of the vote, or the answer of the one model that wrote it."""
    arm: str | None = None
    """The arm that `auto` chose. None if `auto` was not used."""
    tokens: float | None = None
    seconds: float = 0.0
    caller: str = ""
    """The user who rated the answer."""
    judge: str = ""
    """The model that judged the answer."""
    verdicts: Mapping[str, float] = field(default_factory=dict)
    """Verdicts of judge models on the same answer, by model. A user rating shows whether they were right."""
    previous_quality: float | None = None
    """The earlier judgement of the same source on the same run, which this one replaces."""
