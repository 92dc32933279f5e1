"""The debaters of a debate and their positions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from orchestration.messages import ChatMessage, Run, Sampling
from orchestration.patterns.base import StepResult
from orchestration.patterns.debating.critique import Critique
from orchestration.patterns.run_context import COORDINATOR, RunContext
from orchestration.patterns.voting import Voter, choose_voters

MAX_DEBATERS = 6
"""Maximum debaters of one debate."""
ROLES = ("reasoning", "research", COORDINATOR)
"""The roles of debaters where the settings name none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Debater:
    """One debater. `voter` holds its number, model and weight. It speaks as `agent`; `standpoint` is what it
    argues for, '' for anything."""

    voter: Voter
    agent: str
    standpoint: str = ""

    @property
    def number(self) -> int:
        return self.voter.number

    @property
    def name(self) -> str:
        return f"debater {self.number}"

    def __str__(self) -> str:
        model = f", {self.voter.model}" if self.voter.model else ""
        return f"{self.name} ({self.standpoint or self.agent}{model})"

    def system(self) -> tuple[ChatMessage, ...]:
        """The instruction before every conversation."""
        if not self.standpoint:
            return ()
        return (ChatMessage(role="system", content=f"Argue from this standpoint: {self.standpoint}"),)


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """A debater's answer at the end of one round."""

    answer: StepResult
    changed: bool = False
    """Whether it differs from the answer of the round before."""
    unchanged: bool = False
    """Whether the debater gave no new answer, so that this is the one of the round before."""
    reason: str = ""
    """Why it changed (the weakness found in the own answer), or why there is no new answer."""
    critique: Critique | None = None
    """What the debater wrote of all answers in this round."""


def choose_debaters(
    run: Run,
    context: RunContext,
    *,
    debaters: int,
    roles: Sequence[str],
    models: Sequence[str],
    temperature: float,
) -> list[Debater]:
    """The debaters, with models and roles in turns; a role is an agent's name or a standpoint. Debaters with
    the same model and role are samples at `temperature`."""
    names = list(roles) or [role for role in ROLES if role in context.agents] or [COORDINATOR]
    voters = choose_voters(run, context, models, debaters, temperature)[:MAX_DEBATERS]
    assigned = [names[at % len(names)] for at in range(len(voters))]
    kinds = [(voter.model, role) for voter, role in zip(voters, assigned, strict=True)]
    bounds = (context.limits.specialist_tokens, run.sampling.max_tokens)  # what one says may be the answer
    max_tokens = min((bound for bound in bounds if bound), default=None)
    found = []
    for voter, role in zip(voters, assigned, strict=True):
        seed = run.sampling.seed
        again = kinds.count((voter.model, role)) > 1
        own = Voter(
            number=voter.number,
            model=voter.model,
            weight=voter.weight,
            sampling=Sampling(
                max_tokens=max_tokens,
                seed=None if seed is None else seed + voter.number - 1,
                temperature=temperature if again else None,
            ),
        )
        agent = role if role in context.agents else COORDINATOR
        found.append(Debater(voter=own, agent=agent, standpoint="" if agent == role else role))
    return found
