"""All replicas with their free slots, updated with each change, so that a choice inspects only a few."""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace
from random import Random

from orchestration.messages import NodeInfo
from orchestration.placement.breaker import Breaker, BreakerSettings, State
from orchestration.placement.needs import USUAL_OUTPUT, Demand, Needs
from orchestration.placement.pool import Pool
from orchestration.placement.replica import ALONE, RAMP_S, NodeLoad, Replica, SlotShare

MAX_POOLS = 256
"""Maximum number of pools that are kept; the least recently used is dropped and built again when needed."""
SHORT_PROMPT_TOKENS = 1024
"""A prompt of at most this many tokens is assumed to fit any node; longer ones are grouped by powers of
four."""
FEW_NODES = 256
"""Maximum number of nodes for which a new slot share is applied to all of them at once."""
REMEMBERED_NODES = 10_000
"""Maximum number of departed nodes that are remembered, to recognise those that come back."""


Kind = tuple[str, Demand, int, frozenset[tuple[str, str]]]
"""Model, demand, minimum tokens of the prompt, and labels."""
NO_POOLS: dict[Kind, Pool] = {}


class ReplicaIndex:
    """`now` is in seconds on a monotonic clock, the same for all calls."""

    def __init__(self, settings: BreakerSettings, random: Random) -> None:
        self.settings = settings
        self.random = random
        self.nodes: dict[str, NodeLoad] = {}
        self.replicas: dict[str, dict[str, Replica]] = {}
        """The replicas by model and node."""
        self._room: dict[str, list[int]] = {}
        """By model: free slots and all slots of the usable replicas."""
        self._counted: dict[tuple[str, str], tuple[int, int]] = {}
        self._pools: OrderedDict[Kind, Pool] = OrderedDict()
        self._of_model: dict[str, dict[Kind, Pool]] = {}
        """The same pools by model."""
        self._mine: dict[str, int] = {}
        self._slot_share = ALONE
        self._departed: OrderedDict[str, None] = OrderedDict()
        self._wakeups: list[tuple[float, str, str]] = []
        self._held_open: frozenset[str] = frozenset()
        self.on_breaker: Callable[[Replica, State], None] | None = None
        """Called when a breaker opened, closed, or lets a probe through."""

    def hold_open(self, names: frozenset[str], now: float) -> set[str]:
        """Hold the breakers open that have these names, `<model> on <node>`, and no others. Returns the
        models of which a breaker has changed."""
        self._held_open = names
        models: set[str] = set()
        for replica in self._all():
            held = self._is_held(replica)
            if replica.breaker.held_open != held:
                replica.breaker.held_open = held
                self._changed(replica, now)
                models.add(replica.card.name)
        return models

    def reset_breakers(self, model: str, node: str, now: float) -> list[str]:
        """Close the breakers of a model, a node or both ('': all); returns the names of those that were not
        closed."""
        found: list[str] = []
        for replica in self._all():
            if model in ("", replica.card.name) and node in ("", replica.id) and replica.breaker.until:
                found.append(f"{replica.card.name} on {replica.id}")
                replica.breaker.reset()
                replica.limit = None
                self._changed(replica, now)
        return found

    def _all(self) -> Iterator[Replica]:
        for replicas in self.replicas.values():
            yield from replicas.values()

    def _is_held(self, replica: Replica) -> bool:
        return f"{replica.card.name} on {replica.id}" in self._held_open

    def update_settings(self, settings: BreakerSettings) -> None:
        """Use other settings for all breakers."""
        self.settings = settings
        for of_model in self.replicas.values():
            for replica in of_model.values():
                replica.breaker.update_settings(settings)

    def put(self, info: NodeInfo, now: float) -> None:
        """A node has joined or reported. The same object again means that nothing has changed there."""
        load = self.nodes.get(info.id)
        if load is not None and load.info is info:
            self._renewed(load, now)
            return
        if load is None:
            back = info.id in self._departed
            self._departed.pop(info.id, None)
            load = NodeLoad(info, now, self._mine.get(info.id, 0), now if back else now - RAMP_S)
            self.nodes[info.id] = load
        gone = {card.name for card in load.info.models} - {card.name for card in info.models}
        load.slot_share = self._slot_share
        load.report(info, now)
        for model in gone:
            self._drop(model, info.id)
        for card in info.models:
            of_model = self.replicas.setdefault(card.name, {})
            replica = of_model.get(info.id)
            if replica is None:
                of_model[info.id] = replica = Replica(load, card, Breaker(self.settings, self.random))
                replica.breaker.held_open = self._is_held(replica)
            else:
                replica.refresh(card)
            for pool in self._of_model.get(card.name, NO_POOLS).values():
                pool.update(replica, now)
            self._changed(replica, now)

    def _renewed(self, load: NodeLoad, now: float) -> None:
        """The last report still holds."""
        before = load.others, load.max_mine, load.slot_share
        load.slot_share = self._slot_share
        load.report(load.info, now)
        if before != (load.others, load.max_mine, load.slot_share):
            for card in load.info.models:
                self._changed(self.replicas[card.name][load.info.id], now)

    def remove(self, node: str) -> None:
        """A node died, left, or takes no more work."""
        load = self.nodes.pop(node, None)
        if load is None:
            return
        for card in load.info.models:
            self._drop(card.name, node)
        self._departed[node] = None
        if len(self._departed) > REMEMBERED_NODES:
            self._departed.popitem(last=False)

    def set_own_count(self, node: str, mine: int, now: float) -> None:
        """This process has `mine` generations on `node` now."""
        if mine:
            self._mine[node] = mine
        else:
            self._mine.pop(node, None)
        load = self.nodes.get(node)
        if load is not None:
            load.count(mine)
            for card in load.info.models:
                self._changed(self.replicas[card.name][node], now)

    def set_slot_share(self, share: SlotShare, now: float) -> None:
        """Set this dispatcher's share of the slots.

        In a large cluster it is applied now only to nodes with generations of this dispatcher, and to the
        others with their next report.
        """
        self._slot_share = share
        for name in self.nodes if len(self.nodes) <= FEW_NODES else list(self._mine):
            load = self.nodes.get(name)
            if load is not None:
                load.slot_share = share
                self.set_own_count(name, load.mine, now)

    def set_silent(self, node: str, silent: bool, now: float) -> None:
        """The node stopped answering pings, or answers again."""
        load = self.nodes.get(node)
        if load is not None:
            load.silent = silent
            for card in load.info.models:
                self._changed(self.replicas[card.name][node], now)

    def refused(self, node: str, now: float) -> None:
        """The node was full: it counts as full until its next report, or `trust_report`."""
        load = self.nodes.get(node)
        if load is not None:
            load.others = max(load.others, load.info.slots - load.mine)
            for card in load.info.models:
                self._changed(self.replicas[card.name][node], now)

    def other_ended(self, node: str, now: float) -> None:
        """A generation of another process on the node has ended since its last report."""
        load = self.nodes.get(node)
        if load is not None and load.others:
            load.others -= 1
            for card in load.info.models:
                self._changed(self.replicas[card.name][node], now)

    def bar(self, node: str, models: Collection[str], now: float) -> None:
        """`models` of the node may not start there for now; its other models may."""
        load = self.nodes.get(node)
        for card in load.info.models if load is not None else ():
            replica = self.replicas[card.name][node]
            if replica.barred != (card.name in models):
                replica.barred = not replica.barred
                self._changed(replica, now)

    def trust_report(self, node: str, now: float) -> None:
        """Use the node's last report again."""
        load = self.nodes.get(node)
        if load is not None:
            load.report(load.info, load.seen_at)
            for card in load.info.models:
                self._changed(self.replicas[card.name][node], now)

    def breaker_changed(self, replica: Replica, now: float) -> None:
        """The replica's breaker opened, closed, or lets a probe through."""
        until = replica.breaker.until
        if until > now:
            heapq.heappush(self._wakeups, (until, replica.card.name, replica.id))
        if self.on_breaker is not None:
            self.on_breaker(replica, replica.breaker.state(now))
        self._changed(replica, now)

    def wake(self, now: float) -> None:
        """Readmit replicas whose breaker's open state has ended."""
        while self._wakeups and self._wakeups[0][0] <= now:
            _, model, node = heapq.heappop(self._wakeups)
            replica = self.replicas.get(model, {}).get(node)
            if replica is not None:
                self._changed(replica, now)

    def next_wakeup(self, model: str) -> float | None:
        """When the next open breaker of a replica of `model` lets a call through."""
        return min((until for until, name, _ in self._wakeups if name == model), default=None)

    def room(self, model: str) -> tuple[int, int]:
        """Free slots and all slots of the usable replicas."""
        free, slots = self._room.get(model, (0, 0))
        return free, slots

    def pool(self, needs: Needs, now: float) -> Pool:
        """The replicas for this kind of generation."""
        at_least = (
            4 ** ((needs.prompt_tokens.bit_length() - 1) // 2)
            if needs.prompt_tokens > SHORT_PROMPT_TOKENS
            else 0
        )
        pool = self._pool(needs, at_least, now)
        # Too long for all of them: any node can report that exactly.
        return self._pool(needs, 0, now) if at_least and not len(pool) else pool

    def _pool(self, needs: Needs, at_least: int, now: float) -> Pool:
        kind = (needs.model, needs.demand, at_least, needs.labels)
        pool = self._pools.get(kind)
        if pool is not None:
            self._pools.move_to_end(kind)
            return pool
        pool = self._pools[kind] = Pool(replace(needs, prompt_tokens=at_least, output_tokens=USUAL_OUTPUT))
        self._of_model.setdefault(needs.model, {})[kind] = pool
        for replica in self.replicas.get(needs.model, {}).values():
            pool.update(replica, now)
        if len(self._pools) > MAX_POOLS:
            oldest, _ = self._pools.popitem(last=False)
            self._forget(oldest)
        return pool

    def _forget(self, kind: Kind) -> None:
        of_model = self._of_model[kind[0]]
        del of_model[kind]
        if not of_model:
            del self._of_model[kind[0]]

    def _changed(self, replica: Replica, now: float) -> None:
        model, node = replica.card.name, replica.id
        usable, free = replica.usable(now), replica.free
        self._count(model, node, (free, replica.load.info.slots) if usable else (0, 0))
        for pool in self._of_model.get(model, NO_POOLS).values():
            pool.shift(node, usable=usable, free=free > 0)

    def _count(self, model: str, node: str, new: tuple[int, int]) -> None:
        old = self._counted.get((model, node), (0, 0))
        if old == new:
            return
        room = self._room.setdefault(model, [0, 0])
        room[0] += new[0] - old[0]
        room[1] += new[1] - old[1]
        if new == (0, 0):
            del self._counted[model, node]
        else:
            self._counted[model, node] = new

    def _drop(self, model: str, node: str) -> None:
        of_model = self.replicas[model]
        del of_model[node]
        self._count(model, node, (0, 0))
        for pool in self._of_model.get(model, NO_POOLS).values():
            pool.remove(node)
        if not of_model:
            del self.replicas[model]
            self._room.pop(model, None)
            for kind in self._of_model.pop(model, NO_POOLS):
                del self._pools[kind]
