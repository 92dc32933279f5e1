"""A generation's job for an engine, and the queue for its outputs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from actors.backends.base import Output
from actors.engine.guidance import GuideState
from actors.engine.sampling import SamplingPlan
from actors.engine.token_rules import TokenRules
from orchestration.errors import OrchestraError

Item = Output | OrchestraError
"""An output of an engine, or the error to raise in the caller."""


@dataclass(slots=True, kw_only=True, eq=False)
class OutputQueue:
    """The queue for one generation's outputs, on the caller's event loop. Bounded by the generation's
    tokens."""

    loop: asyncio.AbstractEventLoop
    """The caller's event loop."""
    items: asyncio.Queue[Item] = field(default_factory=asyncio.Queue)
    """Outputs that the caller has not read yet."""
    cancelled: bool = False
    """Set by the caller, read by the engine before its next step."""


@dataclass(slots=True, kw_only=True, eq=False)
class ChatJob:
    """A validated and tokenised chat or completion."""

    queue: OutputQueue
    prompt: NDArray[np.int64]
    """Token ids of the prompt and of the prefix [t]."""
    plan: SamplingPlan
    seed: int | None
    """None: a random one."""
    stops: tuple[str, ...]
    """Texts that end the answer."""
    max_tokens: int
    """Maximum tokens that this engine generates."""
    guide: GuideState | None = None
    """Restricts the answer to a grammar; None: free text."""
    rules: TokenRules | None = None
    """Rules for single tokens; None: none."""
    prefix: str = ""
    """The answer so far, by another node."""
    prefix_ids: int = 0
    """Number of ids at the end of `prompt` that are the prefix."""
    prefix_tokens: int = 0
    """Tokens of the prefix, as the other node counted them."""

    @property
    def room(self) -> int:
        """Maximum number of cached tokens of this generation."""
        return len(self.prompt) + self.max_tokens + 1


@dataclass(slots=True, kw_only=True, eq=False)
class EmbeddingJob:
    """Tokenised texts to embed; `inputs[i]` are the token ids of text i."""

    queue: OutputQueue
    inputs: list[list[int]]


class OutputBatch:
    """Collects the outputs of a step and wakes each event loop once."""

    def __init__(self) -> None:
        self._items: list[tuple[OutputQueue, Item]] = []

    def post(self, queue: OutputQueue, item: Item) -> None:
        self._items.append((queue, item))

    def flush(self) -> None:
        """Deliver everything; outputs for a closed event loop are dropped."""
        items, self._items = self._items, []
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[OutputQueue, Item]]] = {}
        for pair in items:
            by_loop.setdefault(pair[0].loop, []).append(pair)
        for loop, pairs in by_loop.items():
            try:
                loop.call_soon_threadsafe(_deliver, pairs)
            except RuntimeError:  # the loop is closed
                continue


def _deliver(pairs: Iterable[tuple[OutputQueue, Item]]) -> None:
    for queue, item in pairs:
        queue.items.put_nowait(item)
