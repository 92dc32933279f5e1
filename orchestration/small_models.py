"""Which models are known to be small: they need bounds and words that larger ones are the worse for."""

from __future__ import annotations

from orchestration.messages import ModelCard

SMALL_PARAMETERS = 3_000_000_000
"""A model with fewer is small."""
SMALL_CONTEXT = 2048
"""A model that takes no more tokens is small, whatever its size."""


def is_small(card: ModelCard) -> bool:
    """False where neither is known, as of most upstreams."""
    return 0 < card.parameters < SMALL_PARAMETERS or 0 < card.context_tokens <= SMALL_CONTEXT
