"""What users say of answers: found, counted once, and added to the records."""

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
    def _number(cls, said: object) -> object:
        if isinstance(said, bool):
            raise ValueError("a number from -1 to 1, or good or bad")
        if isinstance(said, str):
            if said not in SCORES:
                raise ValueError("a number from -1 to 1, or good or bad")
            return SCORES[said]
        return said

    @field_validator("run")
    @classmethod
    def _plain(cls, run: str) -> str:
        return run.removeprefix("chatcmpl-")


class FeedbackResult(Wire):
    """What became of it. `replaced` is the score that the same run had before."""

    run: str
    score: float
    kind: str
    pattern: str
    replaced: float | None = None
    object: Literal["feedback"] = "feedback"


class FeedbackCounter:
    """Any number of them may work at once."""

    def __init__(self, bus: Bus) -> None:
        self._runs = run_feedback_bucket(bus)
        self._store = RecordStore(bus)

    async def give(
        self, feedback: Feedback, allowed: Callable[[str], bool] = lambda _: True, *, by: str = ""
    ) -> FeedbackResult:
        """Count it; where the run had feedback before, the last counts, once. `allowed` says whether who
        gives it may see runs of a caller. It is a word of the caller `by`; '' speaks for the run's own.

        Raises `UnknownRun`, `NotEnded`, `BusUnavailable`.
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
        word = _sign(score)
        FEEDBACK.labels(after.kind, after.pattern, word).inc()
        if after.flip is not None:
            DEBATE_FLIPS_JUDGED.labels(after.kind, after.flip, word).inc()
        seen = after.observation(by or before.caller, before.score)
        if seen is not None and before.score != score:
            await self._store.add(after.kind, [seen])
        return FeedbackResult(
            run=after.run, score=score, kind=after.kind, pattern=after.pattern, replaced=before.score
        )


def _ended_run(run: str, value: bytes | None, allowed: Callable[[str], bool]) -> RunFeedback:
    """The record `value` of a run. Raises `UnknownRun` or `NotEnded`."""
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
        f"no run {run!r} is known: feedback is taken for a day, on runs of the patterns", param="run"
    )
