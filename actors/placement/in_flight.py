"""The generations that this process has on each node, and the answers that it awaits from them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from orchestration.errors import BusUnavailable, NodeLost, OrchestraError

Answers = set[asyncio.Future[Any]]
"""The futures of one awaited answer, where others may fail it."""


class InFlight:
    """`counts` are the slots taken by node; nodes without any are left out."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}
        self.busy = asyncio.Event()
        """Set while any slot is taken."""
        self.on_count: list[Callable[[str, int], None]] = []
        """Called with a node and its new count after each change."""
        self._answers: dict[str, dict[str, Answers]] = {}
        """The awaited answers by node and generation."""

    def take(self, node: str) -> None:
        """Take a slot of `node`."""
        self.counts[node] = self.counts.get(node, 0) + 1
        self.busy.set()
        self._notify(node)

    def free(self, node: str) -> None:
        left = self.counts[node] - 1
        if left:
            self.counts[node] = left
        else:
            del self.counts[node]
            if not self.counts:
                self.busy.clear()
        self._notify(node)

    def _notify(self, node: str) -> None:
        for call in self.on_count:
            call(node, self.counts.get(node, 0))

    def expect_answer(self, node: str, generation: str) -> Answers:
        """A set for the future of the answer of `node`, until `forget_answer`; `fail_node` and `fail` set its
        exception."""
        answers: Answers = set()
        self._answers.setdefault(node, {})[generation] = answers
        return answers

    def forget_answer(self, node: str, generation: str, answers: Answers) -> None:
        """Stop tracking an answer."""
        of_node = self._answers.get(node, {})
        if of_node.get(generation) is answers:
            del of_node[generation]
            if not of_node:
                del self._answers[node]

    def fail_node(self, node: str) -> None:
        """Fail all answers of a node that has died."""
        self._fail_all(node, NodeLost(f"node {node} died while it generated the answer"))

    def fail_disconnected(self, node: str) -> None:
        """Fail all answers of a node that lost its connection for a moment: they may be lost."""
        self._fail_all(node, BusUnavailable(f"node {node} lost its connection to NATS for a moment"))

    def _fail_all(self, node: str, error: OrchestraError) -> None:
        for generation in list(self._answers.get(node, ())):
            self.fail(node, generation, error)

    def fail(self, node: str, generation: str, error: OrchestraError) -> None:
        """Fail one awaited answer with `error`."""
        for answer in self._answers.get(node, {}).get(generation, ()):
            if not answer.done():
                answer.set_exception(error)

    @property
    def pending_answers(self) -> int:
        """The number of answers awaited from all nodes."""
        return sum(len(answers) for answers in self._answers.values())
