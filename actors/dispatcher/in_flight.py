"""What a dispatcher has running on each node: counts for placement, and answers to fail when a node dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from actors.runtime.bus import Message
from orchestration.errors import NodeLost


class InFlight:
    """`counts` has only nodes with something on them."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.on_count: list[Callable[[str, int], None]] = []
        """Hear of each new count of a node."""
        self._answers: dict[str, set[asyncio.Future[Message]]] = {}

    def take(self, node: str) -> None:
        """A slot of `node` is spoken for."""
        self.counts[node] = self.counts.get(node, 0) + 1
        self._tell(node)

    def free(self, node: str) -> None:
        left = self.counts[node] - 1
        if left:
            self.counts[node] = left
        else:
            del self.counts[node]
        self._tell(node)

    def _tell(self, node: str) -> None:
        for call in self.on_count:
            call(node, self.counts.get(node, 0))

    @contextmanager
    def answers(self, node: str) -> Iterator[set[asyncio.Future[Message]]]:
        """Where the answers awaited from `node` are, to be failed by `lost`."""
        waiting = self._answers.setdefault(node, set())
        try:
            yield waiting
        finally:
            if not waiting and self._answers.get(node) is waiting:
                del self._answers[node]

    def lost(self, node: str) -> None:
        """The node died: nobody needs to wait for its answers any more."""
        for answer in list(self._answers.get(node, ())):
            if not answer.done():
                answer.set_exception(NodeLost(f"node {node} died while it worked on the answer"))

    def __len__(self) -> int:
        return sum(self.counts.values()) + sum(len(waiting) for waiting in self._answers.values())
