"""The replicas that may run one kind of generation, prepared for drawing."""

from __future__ import annotations

from random import Random

from orchestration.placement.needs import Needs
from orchestration.placement.replica import Replica
from orchestration.placement.scoring import weight
from orchestration.placement.weighted_sampler import WeightedSampler

_DRAWS = 8
"""Maximum draws for a second, different replica, before all are searched."""


class Pool:
    """`kind` stands for all generations of the same model, labels, demand and approximate length.

    A replica is `ready` while it is usable and has a free slot, `full` while it only lacks the slot.
    """

    def __init__(self, kind: Needs) -> None:
        self.kind = kind
        self.ready = WeightedSampler()
        self.full = WeightedSampler()
        self._replicas: list[Replica | None] = []
        self._weights: list[float] = []
        self._places: dict[str, int] = {}
        self._vacant: list[int] = []

    def __len__(self) -> int:
        return len(self._places)

    def update(self, replica: Replica, now: float) -> None:
        """The replica's rates or labels have changed, and perhaps everything else."""
        if replica.mismatch(self.kind):
            self.remove(replica.id)
            return
        place = self._places.get(replica.id)
        if place is None:
            place = self._take_place()
            self._places[replica.id] = place
        self._replicas[place] = replica
        self._weights[place] = weight(replica, self.kind)
        self.shift(replica.id, usable=replica.usable(now), free=replica.free > 0)

    def shift(self, node: str, *, usable: bool, free: bool) -> None:
        """The replica's load or breaker has changed."""
        place = self._places.get(node)
        if place is None:
            return
        chance = self._weights[place] if usable else 0.0
        self.ready.set(place, chance if free else 0.0)
        self.full.set(place, 0.0 if free else chance)

    def _take_place(self) -> int:
        if self._vacant:
            return self._vacant.pop()
        self._replicas.append(None)
        self._weights.append(0.0)
        self.full.grow()
        return self.ready.grow()

    def remove(self, node: str) -> None:
        place = self._places.pop(node, None)
        if place is not None:
            self._replicas[place] = None
            self.ready.set(place, 0.0)
            self.full.set(place, 0.0)
            self._vacant.append(place)

    def two(self, among: WeightedSampler, random: Random, without: frozenset[str]) -> list[Replica]:
        """Up to two different replicas of `among` (`ready` or `full`) outside `without`, drawn by weight."""
        found: list[Replica] = []
        wanted = min(2, among.count)
        for _ in range(_DRAWS):
            if len(found) == wanted:
                return found
            place = among.draw(random)
            replica = None if place is None else self._replicas[place]
            if replica is not None and replica not in found and replica.id not in without:
                found.append(replica)
        for place, chance in enumerate(among.weights):
            if len(found) == wanted:
                break
            replica = self._replicas[place]
            if chance > 0 and replica is not None and replica not in found and replica.id not in without:
                found.append(replica)
        return found
