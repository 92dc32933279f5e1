"""`orchestra/self-consistency`: one model answers several times; its most frequent answer is taken."""

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
    """How many samples are taken, and when they are enough."""

    samples: int = Field(default=5, ge=2, le=MAX_VOTERS)
    max_parallel: int = Field(default=4, ge=1, le=MAX_VOTERS)
    """Samples that run at once: fewer means that fewer are started for nothing."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    kind: AnswerKind = AnswerKind.AUTO
    early: bool = True
    """Whether the vote may end before all samples are taken."""
    think: bool = False
    """Whether the prompt asks the model to think step by step. It helps large models only."""
    confidence: float = Field(default=0.95, gt=0.5, le=1)
    """No more samples are taken when the leader keeps its lead with this probability."""


@pattern("self-consistency", settings=SelfConsistencySettings)
async def self_consistency(
    run: Run, context: RunContext, settings: SelfConsistencySettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """One model, the most trusted where the caller names none, answers several times; its most frequent
    answer is taken.

    Wang et al., ICLR 2023, ended early by `orchestration.patterns.consensus.quorum`. A budget limits the
    number of samples.
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
