"""What one run teaches about models and ways to answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from orchestration.messages import Wire

Source = Literal["user", "test", "judge", "vote"]
"""Who says what is right: a user; a check that cannot err, such as tests that pass or a schema that is met; a
model that judges; the voices of a vote among themselves."""


class VoterAnswer(Wire):
    """Which answer a model gave in a vote: 0 is the answer of the run, others are told apart by numbers from
    1 on, and None could not be read. `followed` says that the model was asked because others did not agree:
    such questions are hard, so that its answer says less of it than those to all questions do."""

    model: str
    group: int | None = Field(default=None, ge=0)
    followed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """`quality` from 0 (wrong) to 1 (right) is what `source` says of the run's answer; None where nobody
    judged it. `answers` are those of the run's vote, or of the one model that answered.

    `arm` is the way to answer that `auto` chose, None where it chose none; it took `tokens` and `seconds`.
    `caller` names the user, and `judge` the model, that judged. `previous_quality` is the quality that the
    same source gave the same run before, which counts no more. `verdicts` are those of judges on the same
    answer, by model, which a user's word shows to be right or wrong.
    """

    source: Source = "vote"
    quality: float | None = None
    weight: float = 1.0
    answers: Sequence[VoterAnswer] = ()
    arm: str | None = None
    tokens: float | None = None
    seconds: float = 0.0
    caller: str = ""
    judge: str = ""
    verdicts: Mapping[str, float] = field(default_factory=dict)
    previous_quality: float | None = None
