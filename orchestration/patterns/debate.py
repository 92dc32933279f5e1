"""`orchestra/debate`: debaters answer, criticise each other and improve, until a judge ends it.

    round 1: all answer at once ──▶ round 2 … : critique, improved answer ──▶ synthesis (streamed)

After multiagent debate (Du et al., "Improving Factuality and Reasoning in Language Models through Multiagent
Debate", ICML 2024). The critique is a step of its own with a guided form.
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
    """The debaters, the rounds and the judge."""

    debaters: int = Field(default=3, ge=2, le=MAX_DEBATERS)
    rounds: int = Field(default=2, ge=1, le=5)
    """Maximum rounds, including the first one of independent answers."""
    roles: tuple[Annotated[str, Field(min_length=1, max_length=200)], ...] = Field(
        default=(), max_length=MAX_DEBATERS
    )
    """Roles that debaters take in turns: names of agents, or standpoints to argue from."""
    models: tuple[Annotated[str, Field(min_length=1, max_length=256)], ...] = Field(
        default=(), max_length=MAX_DEBATERS
    )
    """Models that debaters use in turns. Empty: the caller's model, else the live models that are expected to
    do best together."""
    visible: SharedView = "answers"
    """What each debater sees of the others."""
    judge: str = Field(default=COORDINATOR, min_length=1, max_length=64)
    """The agent that writes the synthesis of free texts."""
    agree_at: float = Field(default=1.0, gt=0.5, le=1)
    """The debate ends when this share of debaters, by weight, holds the same position."""
    temperature: float = Field(default=0.7, ge=0, le=2)
    """Temperature of debaters with the same model and role."""


@pattern("debate", settings=DebateSettings)
async def debate(
    run: Run, context: RunContext, settings: DebateSettings
) -> AsyncGenerator[TextDelta | StepResult, None]:
    """Debaters answer, criticise each other and improve; a judge ends the debate and writes the synthesis.

    The answers of the first round are independent; later ones mostly follow others. So a debater that adopts
    another's position counts for it in part, and the first round's leader stays unless another position
    outweighs it: see `orchestration.patterns.debating.evidence`.

    A debater that fails or answers nonsense drops out, with a note. When all fail, the first error is raised;
    when none could be asked within the budget, or none makes sense, the coordinator answers alone.
    """
    debaters = choose_debaters(
        run,
        context,
        debaters=settings.debaters,
        roles=settings.roles,
        models=settings.models,
        temperature=settings.temperature,
    )
    rounds = DebateRounds(context, debaters, settings.visible)
    judge = Judge(rounds, settings.judge, settings.agree_at, settings.rounds, settings.models)
    await context.event("round", number=1, debaters=[str(debater) for debater in debaters])
    await rounds.run_first_round()
    if not rounds.positions:
        if len(rounds.errors) == len(debaters) and not rounds.is_out_of_budget:
            raise rounds.errors[0]
        await context.warn("no debater has an answer; the coordinator answers alone")
        async with aclosing(single.inside(run, context)) as items:
            async for item in items:
                yield item
        return
    number = 1
    while await judge.judge_round(number) is None:
        number += 1
        await context.event("round", number=number, debaters=[str(debater) for debater in rounds.debaters])
        await rounds.run_round(number)
    context.report["debate"] = await judge.report()
    async with aclosing(judge.write_answer()) as items:
        async for item in items:
            yield item
