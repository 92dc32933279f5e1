"""What is kept of a run for a day: how it was answered, and what its user says of it."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from actors.bus.bus import Bus
from actors.bus.key_value import Bucket
from orchestration.messages import Wire
from orchestration.query_analysis.features import Kind
from orchestration.trust.observation import Observation, VoterAnswer
from orchestration.trust.run_observations import Flip

BUCKET = "run_feedback"


class RunFeedback(Wire):
    """`arm` is '' where `auto` did not choose, `model` where it chose none to answer alone; `audit` says
    that all models were asked. `answers` are those of the run's vote, or of the model that wrote it; there
    is none before its end. `verdicts` are those of judges, by their model. `flip` says what became of a
    debate whose lead changed. `score` and `comment` are the user's."""

    run: str
    caller: str = ""
    kind: Kind
    pattern: str
    arm: str = ""
    model: str = ""
    reason: str = ""
    audit: bool = False
    state: Literal["chosen", "ended"] = "chosen"
    answers: tuple[VoterAnswer, ...] = ()
    verdicts: dict[str, float] = Field(default_factory=dict)
    flip: Flip | None = None
    score: float | None = Field(default=None, ge=-1, le=1)
    comment: str = ""

    def observation(self, by: str, previous_quality: float | None) -> Observation | None:
        """What the user's score teaches, where `by` gave it, `previous_quality` an earlier one; None where
        there is none."""
        if self.score is None:
            return None
        return Observation(
            source="user",
            quality=_quality(self.score),
            answers=self.answers,
            arm=self.arm or None,
            caller=by,
            verdicts=self.verdicts,
            previous_quality=None if previous_quality is None else _quality(previous_quality),
        )

    def encoded(self) -> bytes:
        return self.model_dump_json(exclude_defaults=True).encode()


def run_feedback_bucket(bus: Bus) -> Bucket:
    """By the runs' ids."""
    return Bucket(bus, BUCKET)


def _quality(score: float) -> float:
    """From 0 to 1, of a score from -1 to 1."""
    return (score + 1) / 2
