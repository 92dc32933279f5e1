"""`orchestra/ensemble`: several voices at once, and what they agree on."""

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
    """Who speaks, and how the vote is held."""

    models: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field(
        default=(), max_length=MAX_VOTERS
    )
    """Empty: the caller's model, else those that live which are expected to do best together."""
    samples: int = Field(default=3, ge=2, le=MAX_VOTERS)
    """Voices at least: with fewer models, they speak in turns."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """Of a model that speaks more than once."""
    kind: AnswerKind = AnswerKind.AUTO
    confidence: float = Field(default=0.95, gt=0.5, le=1)
    """The probability that the leader keeps its lead, by the records of those who are out, from which the
    vote ends. At 1, and while there is no record, it ends when no vote that is out can change the outcome."""
    early: bool = True
    """Whether it may end before all have voted."""
    cascade: bool = True
    """Whether different models are asked one after another, the most trusted first, only while the outcome is
    open; else all at once, which is sooner where they differ and costs more."""
    stream_at: float = Field(default=0.9, gt=0.5, le=1)
    """The probability from which the leading answer is told before the vote has ended."""
    min_similarity: float = Field(default=MIN_SIMILARITY, gt=0, le=1)
    """The cosine from which two free texts say the same."""
    synthesis: bool = False
    """Where voices dissent, the coordinator writes the answer from what most say and from the dissent."""


@pattern("ensemble", settings=EnsembleSettings)
async def ensemble(
    run: Run, context: RunContext, settings: EnsembleSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """Several models, or several samples of one, answer; their consensus is the answer.

    A model's vote counts as much as the model is trusted at such questions: see `orchestration.trust`.

    What agrees depends on the kind of answer: see `orchestration.patterns.consensus`. Voices that fail or
    answer nonsense are left out and said; when all fail the first error is raised.
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
