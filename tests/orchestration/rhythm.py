"""A made-up trace of several weeks with a daily rhythm, and a node that is warmed by a forecast or is not."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from orchestration.forecast import Forecast, ModelCall
from orchestration.messages import Hardware, MemoryUse, ModelCard, NodeInfo
from orchestration.model_memory import Residency
from orchestration.warming import plan

HOUR_S, DAY_S, WEEK_S = 3600.0, 86400.0, 604800.0
LOAD_S = 4.0
EVERY_S, HORIZON_S, FLOOR = 300.0, 900.0, 0.2
SIZES = {"assistant": 40, "code": 40, "mail": 30, "report": 60, "digest": 30, "critic": 20}
LIMIT = 100
HOURS = {"assistant": (8, 18), "code": (9, 12), "mail": (13, 15), "report": (17, 18), "digest": (6, 7)}
"""When each is in use on working days; `critic` follows some of what `code` wrote."""
A_DAY = {"assistant": 300, "code": 120, "mail": 60, "report": 25, "digest": 20}


@dataclass(frozen=True, slots=True, order=True)
class Asked:
    at: float
    run: str
    model: str


def trace(weeks: int, seed: int = 7) -> Iterator[Asked]:
    """In order of time."""
    random = Random(seed)
    found: list[Asked] = []
    for day in range(7 * weeks):
        if day % 7 in (2, 3):  # the first day of Unix time was a Thursday
            continue
        for model, (since, until) in HOURS.items():
            for _ in range(round(A_DAY[model] * random.uniform(0.7, 1.3))):
                at = day * DAY_S + random.uniform(since, until) * HOUR_S
                run = f"{day}-{len(found)}"
                found.append(Asked(at, run, model))
                if model == "code" and random.random() < 0.5:
                    found.append(Asked(at + random.uniform(20, 40), run, "critic"))
    yield from sorted(found)


@dataclass(slots=True)
class WarmedNode:
    """Holds some of the models; `forecast` says what is loaded ahead, None leaves all to who asks."""

    forecast: Forecast | None
    memory: Residency = field(default_factory=lambda: Residency(LIMIT, SIZES))
    warmed: set[str] = field(default_factory=set)

    def run(self, asked: Iterator[Asked], counted_from: float) -> Counter[str]:
        """How many found their model cold, warmed or there."""
        found: Counter[str] = Counter()
        due: list[float] = [0.0]
        for each in asked:
            while due[0] < each.at:
                self._warm(due[0])
                heapq.heapreplace(due, due[0] + EVERY_S)
            outcome = self._use(each.model)
            if each.at >= counted_from:
                found[outcome] += 1
            if self.forecast is not None:
                self.forecast.add_arrivals(each.model, each.at)
                self.forecast.add_call(ModelCall(run=each.run, pattern="work", model=each.model), each.at)
                if each.model == "code":
                    self._warm(each.at)
        return found

    def _use(self, model: str) -> str:
        there = model in self.memory
        outcome = "warmed" if model in self.warmed else "hit" if there else "cold"
        self.warmed.discard(model)
        if not there:
            self._bring(model, self.memory.victims(model) or [])
        self.memory.use(model)
        return outcome

    def _bring(self, model: str, leaving: list[str]) -> None:
        for each in leaving:
            self.memory.remove(each)
            self.warmed.discard(each)
        self.memory.use(model)

    def _warm(self, now: float) -> None:
        if self.forecast is None:
            return
        for warm in plan([self.info()], self.forecast.expected(now, HORIZON_S), floor=FLOOR):
            self._bring(warm.model, list(warm.leaving))
            self.warmed.add(warm.model)

    def info(self) -> NodeInfo:
        cards = tuple(
            ModelCard(name=name, memory_bytes=size, loaded=name in self.memory, load_s=LOAD_S)
            for name, size in SIZES.items()
        )
        hardware = Hardware(cores=2, memory_bytes=LIMIT, provider="simulated")
        memory = MemoryUse(limit_bytes=LIMIT)
        return NodeInfo(id="n", backend="echo", models=cards, hardware=hardware, memory=memory, slots=4)
