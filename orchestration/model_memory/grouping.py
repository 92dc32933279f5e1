"""Decides which models may start on nodes whose memory does not hold all their models.

Generations of a loaded model continue while other models wait, so that models are not swapped for each
request. A model keeps its place for a limited time, then makes room for the model that has waited longest:
batching with set-up times, as for machines that need refitting between kinds of work. A model whose work has
just ended keeps its place a little longer, because its client may send the next request at once (anticipatory
scheduling: Iyer and Druschel, 2001).

Pure: `now` is in seconds on a monotonic clock.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from orchestration.messages import NodeInfo
from orchestration.model_memory.memory_view import FAR, MemoryView


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingModel:
    """A model whose oldest generation has waited since `since`; waiting weighs more with a higher `urgency`.

    `nodes` may run it. `served` says that it is in the memory of a node that takes more of it: then it only
    uses room that no other model needs.
    """

    model: str
    since: float
    urgency: float = 1.0
    served: bool = False
    nodes: Collection[str] = ()


Urgencies = dict[str, float]
"""The urgency of each model that waits at this dispatcher."""


class TimeSlices(NamedTuple):
    """The models that may start now, by node. The result is valid until `until`."""

    open: dict[str, set[str]]
    until: float


class Grouping:
    """All nodes whose memory does not hold all their models; other nodes are ignored.

    A model may keep its place for `hold_s` while others wait, or for as long as loading the next model takes
    if that is longer; less urgent work keeps it for a shorter time in proportion. With 0 the order of arrival
    decides, however often models are swapped.
    """

    def __init__(self, hold_s: float) -> None:
        self.hold_s = hold_s
        self.nodes: dict[str, MemoryView] = {}
        self.changed = False
        """Whether `time_slices` may give another result than the last time."""
        self._open: set[str] = set()
        self._left_at: dict[str, float] = {}
        """When each model that may start nowhere could last start."""

    def report(self, info: NodeInfo, now: float) -> None:
        """Take over a node's report."""
        if not 0 < info.memory.limit_bytes < sum(card.memory_bytes for card in info.models):
            self.remove(info.id)
            return
        memory = self.nodes.get(info.id)
        if memory is None:
            memory = self.nodes[info.id] = MemoryView(self.hold_s)
        self.changed = memory.report(info, now) or self.changed

    def remove(self, node: str) -> None:
        """Remove a node that is gone or holds all its models."""
        if self.nodes.pop(node, None) is not None:
            self.changed = True
            offered = {model for memory in self.nodes.values() for model in memory.sizes}
            self._left_at = {model: at for model, at in self._left_at.items() if model in offered}

    def started(self, node: str, model: str, now: float) -> None:
        """A generation was sent to `node`. If its model is not loaded there, others are evicted for it."""
        memory = self.nodes.get(node)
        if memory is not None:
            self.changed = memory.started(model, now) or self.changed

    def ended(self, node: str, model: str, now: float, *, failed: bool, waited_for: bool) -> None:
        """A generation has ended. `failed`: its model may not have been loaded. `waited_for`: more of the
        model waits."""
        memory = self.nodes.get(node)
        if memory is not None:
            ended = memory.ended(model, now, failed=failed, waited_for=waited_for)
            self.changed = ended or self.changed

    def in_memory(self, node: str, model: str) -> bool:
        """Whether the model is in the node's memory, or can be at any time."""
        memory = self.nodes.get(node)
        return memory is None or model in memory.groups

    def time_slices(self, pending_models: Iterable[PendingModel], now: float) -> TimeSlices:
        """The models that may start on each node, until a node reports or other models wait."""
        self.changed = False
        own = list(pending_models)
        waited_for = {each.model: each.urgency for each in own}
        claims = [
            PendingModel(model=model, since=now, nodes=(node,))  # waits at another dispatcher
            for node, memory in self.nodes.items()
            for model in memory.claims
            if model not in waited_for
        ]
        found = {node: set(memory.groups) for node, memory in self.nodes.items()}
        until = FAR
        taken: set[str] = set()
        for each in sorted(own + claims, key=lambda each: self._rank(each, now)):
            if each.served:
                self._use_spare_room(each, waited_for, taken, found, now)
            else:
                until = min(until, self._make_room(each, waited_for, taken, found, now))
        self._record_departures(found, now)
        lingering = (memory.next_end(now, waited_for) for memory in self.nodes.values())
        return TimeSlices(found, min((until, *lingering)) if waited_for else FAR)

    def _use_spare_room(
        self,
        pending: PendingModel,
        waited_for: Urgencies,
        taken: set[str],
        found: dict[str, set[str]],
        now: float,
    ) -> None:
        """Let the model start on each node with room that no other model needs."""
        for node in pending.nodes:
            memory = self.nodes.get(node)
            if memory is not None and node not in taken and pending.model not in memory.groups:
                eviction = memory.eviction(pending.model, pending.urgency, waited_for, by_force=False)
                if eviction is not None and eviction.at <= now:
                    found[node].add(pending.model)

    def _make_room(
        self,
        pending: PendingModel,
        waited_for: Urgencies,
        taken: set[str],
        found: dict[str, set[str]],
        now: float,
    ) -> float:
        """Find the node that has room for the model first. The models there take no more work once their time
        is over; before that, returns when it is over."""
        evictions = []
        for node in pending.nodes:
            memory = self.nodes.get(node)
            if memory is not None and node not in taken and pending.model not in memory.groups:
                eviction = memory.eviction(pending.model, pending.urgency, waited_for, by_force=True)
                if eviction is not None:
                    evictions.append((eviction.at > now, eviction.busy, eviction.at, node, eviction))
        if not evictions:
            return FAR
        later, busy, at, node, eviction = min(evictions)
        taken.add(node)
        if later:
            return at
        found[node].difference_update(eviction.leaving)
        if not busy:
            found[node].add(pending.model)
        return FAR

    def _rank(self, pending: PendingModel, now: float) -> tuple[bool, float, str]:
        """Models that run nowhere first, then by the time since they could last start. Otherwise the models
        with the longest queues would alternate among themselves."""
        since = pending.since
        if self.hold_s:
            since = max(since, self._left_at.get(pending.model, since))
        return pending.served, (since - now) * pending.urgency, pending.model

    def _record_departures(self, found: dict[str, set[str]], now: float) -> None:
        able = set().union(*found.values())
        for model in self._open - able:
            self._left_at[model] = now
        for model in able:
            self._left_at.pop(model, None)
        self._open = able
