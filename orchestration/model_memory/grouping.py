"""Whose turn it is in a memory that does not hold all the models it offers.

Generations of the model that is in memory go on while others wait for theirs, so that models are not swapped
for every request; a group holds its place for a bounded time, then makes room for who has waited longest.
That is batching by set-up time with a limit, as for machines that must be refitted between kinds of work. A
group whose work has just run out keeps its place a moment longer, since whoever asked it may ask again at
once (anticipatory scheduling: Iyer and Druschel, 2001).

Pure: `now` is in seconds on a clock that never goes back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from orchestration.messages import NodeInfo
from orchestration.model_memory.memory_view import FAR, MemoryView


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingModel:
    """A model for which generations wait since `since`; the higher the `urgency`, the longer that counts.

    `nodes` are those that may run it. `served` says that it is in the memory of one that takes more of it:
    then it takes a place where nothing runs or waits, and displaces nobody.
    """

    model: str
    since: float
    urgency: float = 1.0
    served: bool = False
    nodes: Collection[str] = ()


Urgencies = dict[str, float]
"""Of the models that wait here."""


class TimeSlices(NamedTuple):
    """By node the models that may start there now. All may change by itself at `until`."""

    open: dict[str, set[str]]
    until: float


class Grouping:
    """All nodes whose memory does not hold what they offer; the others are none of its business.

    A group may hold its place for `hold_s` while others wait, less urgent work by as much shorter, and any
    for as long as loading the next model takes. With 0 the order of arrival decides, whatever swaps that
    costs.
    """

    def __init__(self, hold_s: float) -> None:
        self.hold_s = hold_s
        self.nodes: dict[str, MemoryView] = {}
        self.changed = False
        """Whether `time_slices` may give something else than it did last."""
        self._open: set[str] = set()
        self._left_at: dict[str, float] = {}
        """When each model that may start nowhere could last."""

    def report(self, info: NodeInfo, now: float) -> None:
        """What a node says of itself."""
        if not 0 < info.memory.limit_bytes < sum(card.memory_bytes for card in info.models):
            self.remove(info.id)
            return
        memory = self.nodes.get(info.id)
        if memory is None:
            memory = self.nodes[info.id] = MemoryView(self.hold_s)
        self.changed = memory.report(info, now) or self.changed

    def remove(self, node: str) -> None:
        """It is gone, or holds all it offers."""
        if self.nodes.pop(node, None) is not None:
            self.changed = True
            offered = {model for memory in self.nodes.values() for model in memory.sizes}
            self._left_at = {model: at for model, at in self._left_at.items() if model in offered}

    def started(self, node: str, model: str, now: float) -> None:
        """A generation was sent there: where its model is not in memory, others leave for it."""
        memory = self.nodes.get(node)
        if memory is not None:
            self.changed = memory.started(model, now) or self.changed

    def ended(self, node: str, model: str, now: float, *, failed: bool, waited_for: bool) -> None:
        """It is over; `failed` where the model may not even have been loaded for it, `waited_for` where more
        of it waits."""
        memory = self.nodes.get(node)
        if memory is not None:
            ended = memory.ended(model, now, failed=failed, waited_for=waited_for)
            self.changed = ended or self.changed

    def in_memory(self, node: str, model: str) -> bool:
        """Whether it is there, or may be at any time."""
        memory = self.nodes.get(node)
        return memory is None or model in memory.groups

    def time_slices(self, pending_models: Iterable[PendingModel], now: float) -> TimeSlices:
        """Who may start where, as long as nothing is told of any node and the same models wait."""
        self.changed = False
        own = list(pending_models)
        waited_for = {each.model: each.urgency for each in own}
        claims = [
            PendingModel(model=model, since=now, nodes=(node,))  # of other dispatchers
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
        """Every place that nobody needs."""
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
        """One place, where it comes soonest. Who holds it takes nothing more once its turn is over; until
        then the time of that is the result."""
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
        """Those that run nowhere first, then by how long they wait for a turn, or those with the longest
        queues would take turns with each other alone."""
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
