"""`orchestra/self-consistency`: one model answers several times; what it says most often is the answer."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing

from pydantic import Field

from orchestration.messages import Run, TextDelta
from orchestration.patterns.base import StepResult
from orchestration.patterns.consensus import AnswerKind
from orchestration.patterns.definition import PatternSettings, pattern
from orchestration.patterns.run_context import RunContext
from orchestration.patterns.voting import MAX_VOTERS, VoteRules, Voting, choose_voters


class SelfConsistencySettings(PatternSettings):
    """How often it thinks, and when that is enough."""

    samples: int = Field(default=5, ge=2, le=MAX_VOTERS)
    max_parallel: int = Field(default=4, ge=1, le=MAX_VOTERS)
    """Samples at work at the same time: the fewer, the fewer are begun in vain."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    kind: AnswerKind = AnswerKind.AUTO
    early: bool = True
    """Whether it may end before all samples are taken."""
    think: bool = False
    """Whether it is told to think aloud, as large models should be."""
    confidence: float = Field(default=0.95, gt=0.5, le=1)
    """The probability that the leader keeps its lead, from which no more samples are taken."""


@pattern("self-consistency", settings=SelfConsistencySettings)
async def self_consistency(
    run: Run, context: RunContext, settings: SelfConsistencySettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """One model, the most trusted where the caller names none, answers several times; the answer it reaches
    most often is taken.

    Wang et al., ICLR 2023, ended early by `orchestration.patterns.consensus.quorum`. Within a budget it goes
    on until that is spent or all samples are taken.
    """
    models = () if run.model else tuple(context.ranked()[:1])
    voters = choose_voters(run, context, models, settings.samples, settings.temperature)
    rules = VoteRules(
        early=settings.early,
        kind=settings.kind,
        confidence=settings.confidence,
        max_parallel=settings.max_parallel,
        think=settings.think,
    )
    async with aclosing(Voting(context, voters, rules, "self-consistency").perform()) as items:
        async for item in items:
            yield item
