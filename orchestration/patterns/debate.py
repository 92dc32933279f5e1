"""`orchestra/debate`: debaters answer, criticise each other and improve, until a judge ends it.

    round 1: all answer at once ──▶ round 2 … : critique, improved answer ──▶ synthesis (streamed)

After multiagent debate (Du et al., "Improving Factuality and Reasoning in Language Models through Multiagent
Debate", ICML 2024), with the critique in a guided form of its own.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

from pydantic import Field

from orchestration.messages import Run, TextDelta
from orchestration.patterns.base import StepResult
from orchestration.patterns.debating import MAX_DEBATERS, DebateRounds, Judge, SharedView, choose_debaters
from orchestration.patterns.definition import PatternSettings, pattern
from orchestration.patterns.run_context import COORDINATOR, RunContext
from orchestration.patterns.single import single


class DebateSettings(PatternSettings):
    """Who debates, for how long, and who judges."""

    debaters: int = Field(default=3, ge=2, le=MAX_DEBATERS)
    rounds: int = Field(default=2, ge=1, le=5)
    """At most, the first one of independent answers among them."""
    roles: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(
        default=(), max_length=MAX_DEBATERS
    )
    """In turns: names of agents, or standpoints to argue from."""
    models: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field(
        default=(), max_length=MAX_DEBATERS
    )
    """In turns. Empty: the caller's model, else those that live which are expected to do best together."""
    visible: SharedView = "answers"
    """What each sees of the others."""
    judge: str = Field(default=COORDINATOR, min_length=1, max_length=64)
    """The agent that writes the synthesis of free texts."""
    agree_at: float = Field(default=1.0, gt=0.5, le=1)
    """The share of debaters with the same position from which the debate is over."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """Of debaters with the same model and role."""


@pattern("debate", settings=DebateSettings)
async def debate(
    run: Run, context: RunContext, settings: DebateSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """Debaters answer, criticise each other and improve; a judge ends it and writes the synthesis.

    The answers of the first round are independent, those of later ones mostly follow: who takes over
    another's position counts for it in part, and the first round's leader stays unless what is held instead
    weighs more: see `orchestration.patterns.debating.evidence`.

    A debater that fails or answers garbage drops out, which is said; when all fail the first error is
    raised, and when none could be asked within the budget or makes sense, the coordinator answers alone.
    """
    debaters = choose_debaters(
        run,
        context,
        debaters=settings.debaters,
        roles=settings.roles,
        models=settings.models,
        temperature=settings.temperature,
    )
    floor = DebateRounds(context, debaters, settings.visible)
    judge = Judge(floor, settings.judge, settings.agree_at, settings.rounds, settings.models)
    await context.event("round", number=1, debaters=[str(debater) for debater in debaters])
    await floor.open()
    if not floor.positions:
        if len(floor.errors) == len(debaters) and not floor.spent:
            raise floor.errors[0]
        await context.warn("no debater has an answer; the coordinator answers alone")
        async with aclosing(single.inside(run, context)) as items:
            async for item in items:
                yield item
        return
    number = 1
    while await judge.after(number) is None:
        number += 1
        await context.event("round", number=number, debaters=[str(debater) for debater in floor.debaters])
        await floor.hold(number)
    context.report["debate"] = await judge.report()
    async with aclosing(judge.write()) as items:
        async for item in items:
            yield item
