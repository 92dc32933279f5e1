"""What the agents of this machine can use, by its settings."""

from __future__ import annotations

from actors.agents.embedder import Embedder
from actors.hands.hands import Hands
from actors.settings import Settings

RESEARCH = "research"


def equip(settings: Settings, embedder: Embedder | None) -> Hands:
    """The hands for a process of agents, to be closed at its end."""
    hands = Hands(settings.agents.hands)
    if embedder is not None:
        from actors.knowledge.hand import KnowledgeHand

        hands.give_box(RESEARCH, KnowledgeHand(settings.folder, embedder, settings.knowledge))
    return hands
