"""What an engine tells about itself."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """A reading of one model's engine. Counters grow from the start of the process."""

    model: str
    running: int = 0
    """Generations that hold a slot now."""
    waiting: int = 0
    """Generations admitted that wait for a slot or for memory."""
    kv_tokens: int = 0
    """Tokens whose keys and values are in the slots now."""
    kv_tokens_limit: int = 0
    cache_bytes: int = 0
    """What the keys and values of the slots and of kept prefixes take now."""
    prompt_tokens: int = 0
    """Counter: prompt tokens of the generations that began."""
    cached_tokens: int = 0
    """Counter: prompt tokens that were reused from a shared prefix."""
    prefix_hits: int = 0
    """Counter: generations that reused at least one block of a prefix."""
    completion_tokens: int = 0
    """Counter: tokens generated."""
    steps: int = 0
    """Counter: calls of the model."""
    failures: int = 0
    """Counter: calls of the model that failed."""
    healthy: bool = True
