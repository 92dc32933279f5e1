"""Statistics of an engine."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """Statistics of one model's engine. Counters start at 0 with the process."""

    model: str
    running: int = 0
    """Generations in a slot."""
    waiting: int = 0
    """Accepted generations that wait for a slot or for memory."""
    kv_tokens: int = 0
    """Tokens whose keys and values are in the slots."""
    kv_tokens_limit: int = 0
    cache_bytes: int = 0
    """Bytes of keys and values in the slots and in the prefix cache."""
    prompt_tokens: int = 0
    """Counter: prompt tokens of started generations."""
    cached_tokens: int = 0
    """Counter: prompt tokens taken from the prefix cache."""
    prefix_hits: int = 0
    """Counter: generations that reused at least one cached block."""
    completion_tokens: int = 0
    """Counter: tokens generated."""
    steps: int = 0
    """Counter: calls of the model."""
    failures: int = 0
    """Counter: calls of the model that failed."""
    healthy: bool = True
