"""What the same generations would have cost in swaps, had each run in the order in which it arrived."""

from __future__ import annotations

from bisect import insort
from collections.abc import Mapping

from orchestration.model_memory.residency import Residency

REORDERED = 512
"""Generations that may still turn out to have come after one that is heard of later. Older ones are final."""


class ArrivalOrder:
    """A shadow of one memory. Generations are told in the order of their start, with the number under which
    they arrived; a swap is a load for which another model has to leave."""

    def __init__(self, limit_bytes: int, sizes: Mapping[str, int]) -> None:
        self._final = Residency(limit_bytes, sizes)
        self._swaps = 0
        self._open: list[tuple[int, str]] = []

    def arrived(self, number: int, model: str) -> None:
        insort(self._open, (number, model))
        if len(self._open) > REORDERED:
            settled, self._open = self._open[: REORDERED // 2], self._open[REORDERED // 2 :]
            self._swaps += _swaps(self._final, settled)

    @property
    def swaps(self) -> int:
        """So far."""
        shadow = Residency(self._final.limit_bytes, self._final.sizes)
        for model in self._final:
            shadow.use(model)
        return self._swaps + _swaps(shadow, self._open)


def _swaps(memory: Residency, generations: list[tuple[int, str]]) -> int:
    """Run them through `memory`."""
    count = 0
    for _, model in generations:
        if model not in memory:
            leaving = memory.victims(model) or []
            count += bool(leaving)
            for each in leaving:
                memory.remove(each)
        memory.use(model)
    return count
