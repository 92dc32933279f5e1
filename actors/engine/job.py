"""A generation on its way through an engine, and the way back of what it yields."""

from __future__ import annotations

import asyncio
import time
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
"""What an engine hands over; an error is raised to whoever iterates the generation."""


@dataclass(slots=True, kw_only=True, eq=False)
class OutputQueue:
    """Where the items of one generation go: a queue on the event loop that asked.

    The queue needs no bound of its own: a generation's tokens are bounded.
    """

    loop: asyncio.AbstractEventLoop
    items: asyncio.Queue[Item] = field(default_factory=asyncio.Queue)
    cancelled: bool = False
    """Set on the loop, read by the engine before its next step."""
    came_at: float = field(default_factory=time.monotonic)


@dataclass(slots=True, kw_only=True, eq=False)
class ChatJob:
    """A chat or completion, checked and tokenised."""

    queue: OutputQueue
    prompt: NDArray[np.int64]
    plan: SamplingPlan
    seed: int | None
    stops: tuple[str, ...]
    max_tokens: int
    guide: GuideState | None = None
    rules: TokenRules | None = None
    prefix: str = ""
    """What another node has written of the answer; its ids are the last `prefix_ids` of the prompt, and it
    took that node `prefix_tokens` tokens."""
    prefix_ids: int = 0
    prefix_tokens: int = 0

    @property
    def room(self) -> int:
        """Tokens of cache that this generation may come to use."""
        return len(self.prompt) + self.max_tokens + 1


@dataclass(slots=True, kw_only=True, eq=False)
class EmbeddingJob:
    """Texts to embed, tokenised: `tokens` of input i are `inputs[i]`."""

    queue: OutputQueue
    inputs: list[list[int]]


class OutputBatch:
    """Gathers the items of a step and wakes each event loop once for all of them."""

    def __init__(self) -> None:
        self._items: list[tuple[OutputQueue, Item]] = []

    def post(self, queue: OutputQueue, item: Item) -> None:
        self._items.append((queue, item))

    def flush(self) -> None:
        """Hand everything over; what belongs to a loop that has closed is dropped."""
        items, self._items = self._items, []
        by_loop: dict[asyncio.AbstractEventLoop, list[tuple[OutputQueue, Item]]] = {}
        for pair in items:
            by_loop.setdefault(pair[0].loop, []).append(pair)
        for loop, pairs in by_loop.items():
            try:
                loop.call_soon_threadsafe(_deliver, pairs)
            except RuntimeError:  # the loop is closed: nobody listens any more
                continue


def _deliver(pairs: Iterable[tuple[OutputQueue, Item]]) -> None:
    for queue, item in pairs:
        queue.items.put_nowait(item)
