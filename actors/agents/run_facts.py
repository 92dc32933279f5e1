"""What a process of agents knows when a run, or a step of one, begins."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from typing import Any

from actors.agents.services import AgentServices
from orchestration.errors import NoNode
from orchestration.messages import Run
from orchestration.patterns import RunFacts
from orchestration.roles import choose_model


def run_facts(
    services: AgentServices, run: Run, *, taking_part: Collection[str] | None = None, **more: Any
) -> RunFacts:
    """The agents, the models that live, and the deployment's settings; `more` are further fields.
    `taking_part` are the models of the agents where a caller names none."""
    models = [card for card in services.registry.cards.values() if card.kind == "chat"]
    alive = {card.name for card in models}
    if taking_part is None:
        taking_part = () if run.model else _models_of_agents(services)
    return RunFacts(
        agents=services.descriptions,
        models=tuple(models),
        defaults=services.settings.patterns,
        limits=services.settings.limits,
        patterns=services.catalogue,
        taking_part=taking_part,
        agents_with_models={
            name for name, role in services.roles.items() if not alive.isdisjoint(role.models)
        },
        **more,
    )


def _models_of_agents(services: AgentServices) -> set[str]:
    """The models that the agents take now by themselves."""
    cards = services.registry.cards
    with suppress(NoNode):
        return {choose_model(None, role.models, cards, ()) for role in services.roles.values()}
    return set()


def final_tokens(run: Run, facts: RunFacts) -> int:
    """Tokens that the last step of a run writes at most, where its models do not change that."""
    return run.sampling.max_tokens or facts.limits.final_tokens
