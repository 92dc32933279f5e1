"""What a dispatcher has running on each node: counts for placement, and answers to fail when a node dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from actors.bus.bus import Message
from orchestration.errors import BusUnavailable, NodeLost, OrchestraError


class InFlight:
    """`counts` has only nodes with something on them."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.on_count: list[Callable[[str, int], None]] = []
        """Hear of each new count of a node."""
        self._answers: dict[str, dict[str, set[asyncio.Future[Message]]]] = {}
        """By node and generation."""

    def take(self, node: str) -> None:
        """A slot of `node` is spoken for."""
        self.counts[node] = self.counts.get(node, 0) + 1
        self._notify(node)

    def free(self, node: str) -> None:
        left = self.counts[node] - 1
        if left:
            self.counts[node] = left
        else:
            del self.counts[node]
        self._notify(node)

    def _notify(self, node: str) -> None:
        for call in self.on_count:
            call(node, self.counts.get(node, 0))

    def expect_answer(self, node: str, generation: str) -> set[asyncio.Future[Message]]:
        """Where the answer awaited from `node` is to be, until it is `forget_answer`; `fail_node` and `fail`
        fail it there."""
        answers: set[asyncio.Future[Message]] = set()
        self._answers.setdefault(node, {})[generation] = answers
        return answers

    def forget_answer(self, node: str, generation: str, answers: set[asyncio.Future[Message]]) -> None:
        """Nobody awaits it any more."""
        of_node = self._answers.get(node, {})
        if of_node.get(generation) is answers:
            del of_node[generation]
            if not of_node:
                del self._answers[node]

    def fail_node(self, node: str) -> None:
        """The node died: nobody needs to wait for its answers any more."""
        self._fail_all(node, NodeLost(f"node {node} died while it worked on the answer"))

    def fail_disconnected(self, node: str) -> None:
        """The node was without a connection: its answers may have been lost."""
        self._fail_all(node, BusUnavailable(f"node {node} lost its connection to NATS for a moment"))

    def _fail_all(self, node: str, error: OrchestraError) -> None:
        for generation in list(self._answers.get(node, ())):
            self.fail(node, generation, error)

    def fail(self, node: str, generation: str, error: OrchestraError) -> None:
        """End the wait for one answer with `error`."""
        for answer in self._answers.get(node, {}).get(generation, ()):
            if not answer.done():
                answer.set_exception(error)

    @property
    def pending_answers(self) -> int:
        """Answers awaited from all nodes."""
        return sum(len(answers) for answers in self._answers.values())
