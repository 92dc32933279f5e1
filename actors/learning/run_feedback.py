"""The entry of a run that is stored for a day: how it was answered, and how its user rated it."""

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
    """How a run was answered, and its rating."""

    run: str
    caller: str = ""
    kind: Kind
    pattern: str
    arm: str = ""
    """The arm that `auto` chose. '' if it did not choose."""
    model: str = ""
    """The model of the arm that answers alone. '' if there is none."""
    reason: str = ""
    """Why the arm was chosen."""
    audit: bool = False
    """Whether all models were asked, to improve their records."""
    state: Literal["chosen", "ended"] = "chosen"
    answers: tuple[VoterAnswer, ...] = ()
    """The answers of the vote, or that of the model that wrote the answer. Empty until the run ends."""
    verdicts: dict[str, float] = Field(default_factory=dict)
    """Verdicts of judges, by model."""
    flip: Flip | None = None
    """What a debate whose lead changed did with the new leader."""
    score: float | None = Field(default=None, ge=-1, le=1)
    """The rating of the user."""
    comment: str = ""
    """The comment of the user."""

    def observation(self, by: str, previous_score: float | None) -> Observation | None:
        """Return the observation of the rating, which `by` gave, and which replaces `previous_score`. None
        without a rating."""
        if self.score is None:
            return None
        return Observation(
            source="user",
            quality=_quality(self.score),
            answers=self.answers,
            arm=self.arm or None,
            caller=by,
            verdicts=self.verdicts,
            previous_quality=None if previous_score is None else _quality(previous_score),
        )

    def encoded(self) -> bytes:
        return self.model_dump_json(exclude_defaults=True).encode()


def run_feedback_bucket(bus: Bus) -> Bucket:
    """Return the bucket; its keys are the ids of runs."""
    return Bucket(bus, BUCKET)


def _quality(score: float) -> float:
    """Map a score from -1 to 1 to 0 to 1."""
    return (score + 1) / 2
