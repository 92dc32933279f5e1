"""User feedback on answers: finds the run, counts the rating once, and adds it to the records."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from pydantic import Field, ValidationError, field_validator

from actors.bus.bus import Bus
from actors.bus.key_value import Entry
from actors.learning.metrics import DEBATE_FLIPS_JUDGED, FEEDBACK
from actors.learning.record_store import RecordStore
from actors.learning.run_feedback import RunFeedback, run_feedback_bucket
from orchestration.errors import OrchestraError
from orchestration.messages import Wire

SCORES = {"good": 1.0, "bad": -1.0}
"""Scores that a caller may give by name."""
MAX_COMMENT = 2_000


class UnknownRun(OrchestraError):
    """The run is unknown: it does not exist, belongs to another caller, or ended more than a day ago."""

    status = 404
    code = "unknown_run"


class NotEnded(OrchestraError):
    """The run has not ended, or ended without an answer."""

    status = 409
    code = "run_not_ended"


class Feedback(Wire):
    """A user's rating of the answer of a run."""

    run: str = Field(min_length=1, max_length=200)
    """Id of the run, as in the header `X-Orchestra-Run` of its answer."""
    score: float = Field(ge=-1, le=1)
    """Rating from -1 (bad) to 1 (good), or the word `good` or `bad`."""
    comment: str = Field(default="", max_length=MAX_COMMENT)
    """Text of the user, at most 2,000 characters."""

    @field_validator("score", mode="before")
    @classmethod
    def _number(cls, value: object) -> object:
        if isinstance(value, bool):
            raise ValueError("must be a number from -1 to 1, or good or bad")
        if isinstance(value, str):
            if value not in SCORES:
                raise ValueError("must be a number from -1 to 1, or good or bad")
            return SCORES[value]
        return value

    @field_validator("run")
    @classmethod
    def _plain(cls, run: str) -> str:
        return run.removeprefix("chatcmpl-")


class FeedbackResult(Wire):
    """The rating that was counted. `replaced` is the earlier score of the same run, None without one."""

    run: str
    score: float
    kind: str
    pattern: str
    replaced: float | None = None
    object: Literal["feedback"] = "feedback"


class FeedbackCounter:
    """Counts feedback. Several instances may work at once."""

    def __init__(self, bus: Bus) -> None:
        self._runs = run_feedback_bucket(bus)
        self._store = RecordStore(bus)

    async def submit(
        self, feedback: Feedback, allowed: Callable[[str], bool] = lambda _: True, *, by: str = ""
    ) -> FeedbackResult:
        """Count a rating. If the run was rated before, the new rating replaces the old one.

        `allowed` says whether the sender may see the runs of a caller. The rating counts as one of the caller
        `by`, by default of the caller of the run. Raises `UnknownRun`, `NotEnded` or `BusUnavailable`.
        """
        score = feedback.score
        before: RunFeedback | None = None

        def edit(entry: Entry) -> bytes:
            nonlocal before
            before = _ended_run(feedback.run, entry.value, allowed)
            return before.model_copy(update={"score": score, "comment": feedback.comment}).encoded()

        written = await self._runs.update(feedback.run, edit)
        assert before is not None
        assert written.value is not None
        after = RunFeedback.model_validate_json(written.value)
        sign = _sign(score)
        FEEDBACK.labels(after.kind, after.pattern, sign).inc()
        if after.flip is not None:
            DEBATE_FLIPS_JUDGED.labels(after.kind, after.flip, sign).inc()
        observation = after.observation(by or before.caller, before.score)
        if observation is not None and before.score != score:
            await self._store.add(after.kind, [observation])
        return FeedbackResult(
            run=after.run, score=score, kind=after.kind, pattern=after.pattern, replaced=before.score
        )


def _ended_run(run: str, value: bytes | None, allowed: Callable[[str], bool]) -> RunFeedback:
    """Parse the entry of a run. Raises `UnknownRun` or `NotEnded`."""
    if value is None:
        raise _unknown(run)
    try:
        known = RunFeedback.model_validate_json(value)
    except ValidationError as error:
        raise _unknown(run) from error
    if not allowed(known.caller):
        raise _unknown(run)
    if known.state != "ended":
        raise NotEnded(f"run {run!r} has no answer yet", param="run")
    return known


def _sign(score: float) -> str:
    return "good" if score > 0 else "bad" if score < 0 else "neither"


def _unknown(run: str) -> UnknownRun:
    return UnknownRun(
        f"unknown run {run!r}: feedback is accepted for a day, on runs of patterns", param="run"
    )
