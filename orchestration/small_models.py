"""Tells small models, which need limits and prompts that would make larger ones worse."""

from __future__ import annotations

from orchestration.messages import ModelCard

SMALL_PARAMETERS = 3_000_000_000
"""A model with fewer parameters is small."""
SMALL_CONTEXT = 2048
"""A model with a context of at most so many tokens is small, whatever its size."""


def is_small(card: ModelCard) -> bool:
    """False if neither is known, as for most upstreams."""
    return 0 < card.parameters < SMALL_PARAMETERS or 0 < card.context_tokens <= SMALL_CONTEXT
