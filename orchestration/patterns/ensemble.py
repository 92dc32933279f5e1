"""`orchestra/ensemble`: several models or samples answer at once, and their consensus is the answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from pydantic import Field

from orchestration.messages import Run, TextDelta
from orchestration.patterns.base import StepResult
from orchestration.patterns.consensus import MIN_SIMILARITY, AnswerKind
from orchestration.patterns.definition import PatternSettings, pattern
from orchestration.patterns.run_context import RunContext
from orchestration.patterns.voting import MAX_VOTERS, VoteRules, Voting, choose_voters


class EnsembleSettings(PatternSettings):
    """Which voters answer, and the rules of their vote."""

    models: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field(
        default=(), max_length=MAX_VOTERS
    )
    """The models that vote. Empty: the caller's model, else the live models that are expected to do best
    together."""
    samples: int = Field(default=3, ge=2, le=MAX_VOTERS)
    """Minimum number of voters: with fewer models, models vote several times."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """Temperature of a model that votes several times."""
    kind: AnswerKind = AnswerKind.AUTO
    confidence: float = Field(default=0.95, gt=0.5, le=1)
    """The probability that the leader keeps its lead at which the vote ends. At 1, and for models whose past
    votes are unknown, the vote ends when no pending vote can change the outcome."""
    early: bool = True
    """Whether the vote may end before all have voted."""
    cascade: bool = True
    """Whether different models are asked one after another, the most trusted first, and only while the
    outcome is open. If false, all are asked at once: faster where they disagree, and more expensive."""
    stream_at: float = Field(default=0.9, gt=0.5, le=1)
    """The probability from which the leading answer is streamed before the vote has ended."""
    min_similarity: float = Field(default=MIN_SIMILARITY, gt=0, le=1)
    """The cosine from which two free texts count as the same answer."""
    synthesis: bool = False
    """Whether the coordinator writes the answer from all answers if the voters disagree."""


@pattern("ensemble", settings=EnsembleSettings)
async def ensemble(
    run: Run, context: RunContext, settings: EnsembleSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """Several models, or several samples of one, answer; their consensus is the answer.

    A model's vote weighs as much as the model is trusted at such questions: see `orchestration.trust`. Which
    answers agree depends on their kind: see `orchestration.patterns.consensus`.

    Voters that fail or answer nonsense are left out, and a note says so; when all fail, the first error is
    raised.
    """
    voters = choose_voters(run, context, settings.models, settings.samples, settings.temperature)
    rules = VoteRules(
        kind=settings.kind,
        confidence=settings.confidence,
        stream_at=settings.stream_at,
        early=settings.early,
        cascade=settings.cascade,
        min_similarity=settings.min_similarity,
        synthesis=settings.synthesis,
    )
    async with aclosing(Voting(context, voters, rules, "ensemble").perform()) as items:
        async for item in items:
            yield item
