"""The memory of one node as a dispatcher knows it: which models are loaded, and how long each may stay."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from orchestration.messages import NodeInfo

LINGER = 0.1
"""How long an idle model keeps its place, as a share of the time that loading another one takes."""
SETTLE_S = 2.0
"""A load that this dispatcher caused is assumed done until the node reports it: for twice the load time plus
this, in seconds."""
FAR = float("inf")


@dataclass(slots=True)
class Group:
    """The generations of one model that follow each other without a pause."""

    began: float
    at_work: int = 0
    """This dispatcher's generations; only the node knows those of the others."""
    idle_since: float = -FAR
    over: bool = True
    """Whether its last generation has ended and none waited: the next one begins a new group."""


class Eviction(NamedTuple):
    """The models `leaving` may be evicted from `at` on. `busy` says that they have generations of this
    dispatcher."""

    at: float
    leaving: list[str]
    busy: bool


@dataclass(slots=True)
class _PendingLoad:
    """A load that this dispatcher has caused, and what was evicted for it, until the node confirms it."""

    until: float
    evicted: dict[str, Group]


@dataclass(slots=True)
class MemoryView:
    """`groups` are the loaded models, the least recently used first. See `Grouping` for `hold_s`."""

    hold_s: float
    limit: int = 0
    sizes: dict[str, int] = field(default_factory=dict)
    load_s: dict[str, float] = field(default_factory=dict)
    claims: tuple[str, ...] = ()
    groups: dict[str, Group] = field(default_factory=dict)
    _pending_loads: dict[str, _PendingLoad] = field(default_factory=dict)

    def report(self, info: NodeInfo, now: float) -> bool:
        """Take over the node's report; returns whether other models may start now."""
        before = set(self.groups), self.claims, self.sizes
        self.limit, self.claims = info.memory.limit_bytes, info.memory.claims
        self.sizes = {card.name: card.memory_bytes for card in info.models}
        self.load_s = {card.name: card.load_s for card in info.models}
        loaded = {card.name for card in info.models if card.loaded}
        for name in [
            name for name, load in self._pending_loads.items() if name in loaded or load.until < now
        ]:
            del self._pending_loads[name]
        if not self._pending_loads:  # else the report is older than the load
            resident = {name: each for name, each in self.groups.items() if name in loaded or each.at_work}
            self.groups = resident | {
                name: Group(now) for name in self.sizes if name in loaded - resident.keys()
            }
        return before != (set(self.groups), self.claims, self.sizes)

    def eviction(
        self, model: str, urgency: float, waited_for: Mapping[str, float], *, by_force: bool
    ) -> Eviction | None:
        """What to evict for `model`, and when; None if that is never enough.

        With `by_force` models leave whose time is over, otherwise only those that neither run nor wait.
        `waited_for` has the urgency of each waiting model: less urgent work keeps its place for a shorter
        time in proportion.
        """
        if model not in self.sizes:
            return None
        load_s = self.load_s[model]
        ends = []
        for place, (name, group) in enumerate(self.groups.items()):
            hold_s = self.hold_s * min(1.0, waited_for.get(name, urgency) / urgency)
            # With a shorter time the node would spend most of its time loading.
            end = group.began + max(hold_s, load_s) if self.hold_s else -FAR
            if not group.at_work and name not in waited_for:
                end = min(end, group.idle_since + LINGER * load_s)
            elif not by_force:
                end = FAR
            ends.append((end, place, name))
        excess = sum(self.sizes.get(name, 0) for name in self.groups) + self.sizes[model] - self.limit
        at, leaving = -FAR, []
        for end, _, name in sorted(ends):
            if excess <= 0:
                break
            if size := self.sizes.get(name, 0):
                excess, at = excess - size, end
                leaving.append(name)
        busy = any(self.groups[name].at_work for name in leaving)
        return Eviction(at, leaving, busy) if excess <= 0 and at < FAR else None

    def next_end(self, now: float, waited_for: Collection[str]) -> float:
        """When the next idle model gives up its place for a waiting model that is not loaded."""
        missing = [self.load_s[name] for name in waited_for if name in self.sizes and name not in self.groups]
        if not missing:
            return FAR
        idle = (each.idle_since for each in self.groups.values() if not each.at_work)
        ends = (since + LINGER * load_s for since in idle for load_s in missing)
        return min((end for end in ends if end > now), default=FAR)

    def started(self, model: str, now: float) -> bool:
        """A generation was sent to the node; returns whether other models may start now."""
        group = self.groups.pop(model, None)
        changed = group is None or not group.at_work
        if group is None:
            group = Group(now)
            eviction = self.eviction(model, 1.0, {}, by_force=True)
            idle = [name for name in eviction.leaving if not self.groups[name].at_work] if eviction else []
            until = now + SETTLE_S + 2 * self.load_s.get(model, 0.0)
            self._pending_loads[model] = _PendingLoad(until, {name: self.groups.pop(name) for name in idle})
        elif group.over:
            group.began = now
        group.at_work += 1
        group.over = False
        self.groups[model] = group
        return changed

    def ended(self, model: str, now: float, *, failed: bool, waited_for: bool) -> bool:
        """A generation has ended; returns whether other models may start now."""
        group = self.groups.get(model)
        if group is None or not group.at_work:
            return False
        group.at_work -= 1
        if group.at_work:
            return False
        group.idle_since, group.over = now, not waited_for
        if (
            failed and model in self._pending_loads
        ):  # the node refused it or could not load it: nothing was evicted
            del self.groups[model]
            self.groups = self._pending_loads.pop(model).evicted | self.groups
        return True
