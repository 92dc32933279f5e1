"""Schedules models on nodes whose memory does not hold all the models they offer, by `Grouping`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from typing import Any

from actors.placement.pending_queue import URGENCY, PendingQueue
from orchestration.messages import NodeInfo
from orchestration.model_memory import Grouping, PendingModel
from orchestration.placement.replica_index import ReplicaIndex

MAX_DECISION_S = 0.002
"""A decision that took longer is not made again for ten times as long. A node refuses what was placed by an
outdated decision."""


class ModelScheduler:
    """Bars models from nodes in `index` while other models have their turn there.

    `place_again` is called with each waiting model when a turn has ended by time alone. Costs nothing while
    every node holds all its models.
    """

    def __init__(
        self,
        index: ReplicaIndex,
        pending: PendingQueue[Any],
        place_again: Callable[[str], None],
        hold_s: float,
    ) -> None:
        self.index = index
        self.pending = pending
        self._place_again = place_again
        self._grouping = Grouping(hold_s)
        self._last_pending: set[str] = set()
        self.max_decision_s = MAX_DECISION_S
        self.not_before = 0.0
        """The time of the next decision at the earliest, on the monotonic clock."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def hold_s(self) -> float:
        """How long a model keeps the memory of a node while generations of another wait."""
        return self._grouping.hold_s

    @hold_s.setter
    def hold_s(self, hold_s: float) -> None:
        self._grouping.hold_s = hold_s
        self._grouping.changed = True

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def update_node(self, info: NodeInfo) -> None:
        """A node has joined or reported; `index` has the report already."""
        now = time.monotonic()
        before = info.id in self._grouping.nodes
        self._grouping.report(info, now)
        if before and info.id not in self._grouping.nodes:
            self.index.bar(info.id, (), now)

    def remove_node(self, node: str) -> None:
        self._grouping.remove(node)

    def with_rivals(self, models: Iterable[str]) -> set[str]:
        """`models`, and those that share the memory of a node with one of them which does not hold all."""
        found = set(models)
        for node in self._grouping.nodes.values():
            if not found.isdisjoint(node.sizes):
                found.update(node.sizes)
        return found

    def started(self, node: str, model: str) -> None:
        """A generation of `model` was sent to `node`."""
        if node in self._grouping.nodes:
            self._grouping.started(node, model, time.monotonic())

    def ended(self, node: str, model: str, *, failed: bool) -> None:
        """A generation of `model` has ended on `node`."""
        if node in self._grouping.nodes:
            waits = any(self.pending.counts_of(model))
            self._grouping.ended(node, model, time.monotonic(), failed=failed, waited_for=waits)

    def decide(self) -> None:
        """Bar the models that may not start now. Call it before anything is placed."""
        if not self._grouping.nodes:
            return
        pending_models = set(self.pending.models)
        if pending_models == self._last_pending and not self._grouping.changed:
            return
        now = time.monotonic()
        if now < self.not_before:
            self._schedule(self.not_before - now)
            return
        self._last_pending = pending_models
        time_slices = self._grouping.time_slices(
            [self._pending_model(model, now) for model in pending_models], now
        )
        for node, models in time_slices.open.items():
            self.index.bar(node, self._grouping.nodes[node].sizes.keys() - models, now)
        self.stop()
        if time_slices.until < float("inf"):
            self._schedule(time_slices.until - now)
        took = time.monotonic() - now
        if took > self.max_decision_s:
            self.not_before = now + 10 * took

    def _schedule(self, seconds: float) -> None:
        """Place everything that waits again after `seconds`."""
        self.stop()
        self._timer = asyncio.get_running_loop().call_later(max(0.001, seconds), self._due)

    def _pending_model(self, model: str, now: float) -> PendingModel:
        (first,) = self.pending.in_order(model, 1)
        needs = first.needs
        fit = [
            replica
            for replica in self.index.replicas.get(model, {}).values()
            if replica.usable(now) and not replica.mismatch(needs)
        ]
        return PendingModel(
            model=model,
            since=first.received_at,
            urgency=URGENCY[first.priority],
            served=any(self._grouping.in_memory(each.id, model) and not each.barred for each in fit),
            nodes=[replica.id for replica in fit],
        )

    def _due(self) -> None:
        self._grouping.changed = True
        for model in self.pending.models:
            self._place_again(model)
