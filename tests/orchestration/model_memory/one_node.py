"""One node whose memory does not hold all it offers, played through: it does what grouping lets it do."""

from __future__ import annotations

import heapq
from collections import deque
from dataclasses import dataclass, field

from orchestration.messages import Hardware, MemoryUse, ModelCard, NodeInfo
from orchestration.model_memory import Grouping, PendingModel, Residency

NODE = "n"
HARDWARE = Hardware(cores=2, memory_bytes=2**33, provider="cpu")
CPU_S = 1e-9
"""Clocks that differ by less are the same."""


def told(
    sizes: dict[str, int],
    limit: int,
    loaded: set[str],
    *,
    load_s: float = 1.0,
    claims: tuple[str, ...] = (),
    name: str = NODE,
) -> NodeInfo:
    """What such a node says of itself."""
    cards = tuple(
        ModelCard(name=model, memory_bytes=size, loaded=model in loaded, load_s=load_s)
        for model, size in sizes.items()
    )
    memory = MemoryUse(limit_bytes=limit, claims=claims)
    return NodeInfo(id=name, backend="echo", models=cards, hardware=HARDWARE, memory=memory, slots=4)


@dataclass
class Played:
    """`starts` are the models in the order of their starts, `absences` how long each model waited for the
    memory, each time it did."""

    starts: list[str] = field(default_factory=list)
    loads: int = 0
    absences: list[float] = field(default_factory=list)
    took_s: float = 0.0


class OneNode:
    """`requests` are (arrival, model), in the order of arrival; each takes `service_s` once it is loaded."""

    def __init__(
        self,
        sizes: dict[str, int],
        limit: int,
        *,
        hold_s: float,
        load_s: float,
        service_s: float,
        slots: int = 2,
    ) -> None:
        self.sizes = sizes
        self.load_s = load_s
        self.service_s = service_s
        self.slots = slots
        self.grouping = Grouping(hold_s)
        self.memory = Residency(limit, sizes)
        for model in self.memory.fitting():
            self.memory.use(model)
        self.at_work: list[tuple[float, str]] = []
        self.ready_at: dict[str, float] = {}
        self.waiting: dict[str, deque[float]] = {}
        self.away_since: dict[str, float] = {}
        self.played = Played()
        self._report(0.0)

    def _report(self, now: float) -> None:
        self.grouping.report(
            told(self.sizes, self.memory.limit_bytes, set(self.memory), load_s=self.load_s), now
        )

    def play(self, requests: list[tuple[float, str]]) -> Played:
        """Until all are done."""
        coming = deque(requests)
        now = 0.0
        while True:
            while coming and coming[0][0] <= now + CPU_S:
                at, model = coming.popleft()
                self.waiting.setdefault(model, deque()).append(at)
            while self.at_work and self.at_work[0][0] <= now + CPU_S:
                _, model = heapq.heappop(self.at_work)
                waited_for = model in self.waiting
                self.grouping.ended(NODE, model, now, failed=False, waited_for=waited_for)
                self._report(now)
            until = self._start(now)
            if not (coming or self.at_work or self.waiting):
                break
            moments = [
                until,
                *([coming[0][0]] if coming else []),
                *([self.at_work[0][0]] if self.at_work else []),
            ]
            after = min(moments)
            assert after < float("inf"), f"stuck at {now} with {self.waiting}"
            now = max(after, now + CPU_S)
        self.played.took_s = now
        return self.played

    def _start(self, now: float) -> float:
        """Start what may; when that changes by itself."""
        while True:
            pending_models = [
                PendingModel(model=model, since=line[0], served=model in self.memory, nodes=(NODE,))
                for model, line in self.waiting.items()
            ]
            time_slices = self.grouping.time_slices(pending_models, now)
            may = time_slices.open.get(NODE, set(self.sizes))
            for model in self.waiting.keys() - may:
                self.away_since.setdefault(model, now)
            able = [model for model in self.waiting if model in may]
            if not able or len(self.at_work) >= self.slots:
                return time_slices.until
            self._begin(min(able, key=lambda model: self.waiting[model][0]), now)

    def _begin(self, model: str, now: float) -> None:
        if model not in self.memory:
            leaving = self.memory.victims(model, keep={each for _, each in self.at_work})
            assert leaving is not None, f"no room for {model}: what is in use would have to leave"
            for each in leaving:
                self.memory.remove(each)
            self.played.loads += 1
            self.ready_at[model] = now + self.load_s
        self.memory.use(model)
        line = self.waiting[model]
        line.popleft()
        if not line:
            del self.waiting[model]
        if model in self.away_since:
            self.played.absences.append(now - self.away_since.pop(model))
        self.played.starts.append(model)
        self.grouping.started(NODE, model, now)
        end = max(now, self.ready_at.get(model, 0.0)) + self.service_s
        heapq.heappush(self.at_work, (end, model))
