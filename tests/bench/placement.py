"""What a placement decision costs, and what it is worth.

`python -m tests.bench.placement` times decisions among 100, 1,000 and 10,000 replicas, with the update that
follows each. Then it plays the same skewed load over four nodes of different speed on a simulated clock, once
with Orchestra's chooser and once each at random, in turn, and by least connections. The simulation has the
dispatcher's rules: what finds no free slot waits, oldest first, but for what Orchestra lets overtake;
dispatchers learn of each other's load only from reports up to `REPORT_S` old, and a node that is full after
all refuses. `placement_nodes` does the same with real nodes.
"""

from __future__ import annotations

import heapq
import itertools
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from random import Random

from orchestration.messages import Hardware, ModelCard, ModelRates, NodeInfo
from orchestration.placement import Choice, Chooser, Deferral, Needs, PendingGeneration, SlotShare

MODEL = "m"
DECISIONS = 20_000
SPEEDS = (200.0, 100.0, 50.0, 20.0)
"""Tokens a second for each generation, of four nodes."""
SLOTS = 4
REPORT_S = 0.25
STARVING_S = 2.0
PULLED_AHEAD = SLOTS * len(SPEEDS) // 2
REQUESTS = 20_000
MEAN_TOKENS = 20
LOADS = (0.3, 0.6, 0.85)
"""Of all that the four nodes can do."""
HARDWARE = Hardware(cores=4, memory_bytes=2**33, provider="echo")


def node(name: str, speed: float, *, slots: int = SLOTS, running: int = 0, samples: int = 100) -> NodeInfo:
    """A node whose rates have been measured."""
    rates = ModelRates(samples=samples, first_s=0.0, token_s=1 / speed)
    return NodeInfo(
        id=name,
        backend="echo",
        models=(ModelCard(name=MODEL),),
        hardware=HARDWARE,
        rates={MODEL: rates},
        slots=slots,
        running=running,
    )


def time_decisions(replicas: int) -> tuple[float, float, float]:
    """Median and p99 microseconds of a decision, and the median of the two updates of the node's load."""
    random = Random(1)
    chooser = Chooser(random=random)
    for number in range(replicas):
        chooser.index.put(node(f"n{number}", random.uniform(10, 300), running=random.randrange(5)), 0.0)
    needs = Needs(model=MODEL, prompt_tokens=40, output_tokens=100)
    chooser.choose(needs, 0.0)
    decisions: list[float] = []
    updates: list[float] = []
    for _ in range(DECISIONS):
        began = time.perf_counter()
        choice = chooser.choose(needs, 1.0, patient=True)
        decided = time.perf_counter()
        decisions.append(decided - began)
        if isinstance(choice, Choice):
            began = time.perf_counter()
            chooser.index.set_own_count(choice.node.id, 1, 1.0)
            chooser.index.set_own_count(choice.node.id, 0, 1.0)
            updates.append(time.perf_counter() - began)
    decisions.sort()
    return (
        statistics.median(decisions) * 1e6,
        decisions[int(0.99 * DECISIONS)] * 1e6,
        statistics.median(updates) * 1e6,
    )


Line = deque[tuple[float, int]]
"""When each that waits arrived, and its tokens."""


class Policy:
    """Chooses among nodes with a free slot as one dispatcher sees them; None to wait."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.others = [0] * len(SPEEDS)
        self.mine = [0] * len(SPEEDS)

    def loads(self) -> list[int]:
        return [others + mine for others, mine in zip(self.others, self.mine, strict=True)]

    def report(self, place: int, running: int, now: float) -> None:
        """All that is at work on a node."""
        self.others[place] = max(0, running - self.mine[place])

    def refused(self, place: int, now: float) -> None:
        """The node was full after all."""
        self.others[place] = SLOTS - self.mine[place]

    def pick(self, free: list[int]) -> int:
        raise NotImplementedError

    def start_one(self, waiting: Line, now: float) -> tuple[int, int] | None:
        """Who of those that wait starts now, and where; None for nobody."""
        free = [place for place, load in enumerate(self.loads()) if load < SLOTS]
        return (0, self.pick(free)) if free else None

    def changed(self, place: int, now: float) -> None:
        """`mine` of a node did."""

    def share(self, turn: SlotShare, now: float) -> None:
        """One of several who deal out the requests has its turn."""


class AtRandom(Policy):
    def pick(self, free: list[int]) -> int:
        return self.random.choice(free)


class InTurn(Policy):
    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.last = -1

    def pick(self, free: list[int]) -> int:
        self.last = min(free, key=lambda place: (place - self.last - 1) % len(SPEEDS))
        return self.last


class LeastConnections(Policy):
    def pick(self, free: list[int]) -> int:
        loads = self.loads()
        least = min(loads[place] for place in free)
        return self.random.choice([place for place in free if loads[place] == least])


class Ours(Policy):
    def __init__(self, random: Random) -> None:
        super().__init__(random)
        self.chooser = Chooser(random=random)
        for place in range(len(SPEEDS)):
            self.report(place, 0, 0.0)

    def report(self, place: int, running: int, now: float) -> None:
        self.chooser.index.put(node(str(place), SPEEDS[place], running=running), now)

    def share(self, turn: SlotShare, now: float) -> None:
        self.chooser.index.set_slot_share(turn, now)

    def refused(self, place: int, now: float) -> None:
        self.chooser.index.refused(str(place), now)

    def changed(self, place: int, now: float) -> None:
        self.chooser.index.set_own_count(str(place), self.mine[place], now)

    def start_one(self, waiting: Line, now: float) -> tuple[int, int] | None:
        pulled = list(islice(waiting, PULLED_AHEAD))
        found = self.chooser.start_one(
            [
                PendingGeneration(Needs(model=MODEL, prompt_tokens=0, output_tokens=n), now - at)
                for at, n in pulled
            ],
            now,
            hurry=len(pulled) > PULLED_AHEAD // 2,
        )
        return None if isinstance(found, Deferral) else (found[0], int(found[1].node.id))


POLICIES: dict[str, Callable[[Random], Policy]] = {
    "orchestra": Ours,
    "random": AtRandom,
    "round-robin": InTurn,
    "least connections": LeastConnections,
}


@dataclass(slots=True)
class Simulation:
    """Poisson arrivals with geometric lengths, dealt to `dispatchers` in turn."""

    policy: str
    load: float
    dispatchers: int
    seed: int
    requests: int = REQUESTS
    running: list[int] = field(default_factory=lambda: [0] * len(SPEEDS))
    latencies: list[float] = field(default_factory=list)

    def run(self) -> Sequence[float]:
        """Seconds from arrival to end of each request."""
        random = Random(self.seed)
        policies = [POLICIES[self.policy](Random(self.seed + n)) for n in range(self.dispatchers)]
        waiting: list[Line] = [deque() for _ in policies]
        rate = self.load * SLOTS * sum(SPEEDS) / MEAN_TOKENS
        numbers = itertools.count()
        events: list[tuple[float, int, str, tuple[int, int, float]]] = []
        now = 0.0
        for number in range(self.requests):
            now += random.expovariate(rate)
            tokens = max(1, round(random.expovariate(1 / MEAN_TOKENS)))
            events.append((now, next(numbers), "arrives", (number % self.dispatchers, tokens, now)))
        ticks = int(now / REPORT_S) + 400
        events += [(REPORT_S * tick, next(numbers), "report", (0, 0, 0.0)) for tick in range(ticks)]
        heapq.heapify(events)
        while len(self.latencies) < self.requests:
            now, _, kind, (who, place, arrived) = heapq.heappop(events)
            if kind == "arrives":
                waiting[who].append((arrived, place))
            elif kind == "ends":
                self.running[place] -= 1
                policies[who].mine[place] -= 1
                policies[who].changed(place, now)
                self.latencies.append(now - arrived)
            for number, policy in enumerate(policies):
                if kind == "report":
                    starves = any(map(self._starves, policies, waiting, itertools.repeat(now)))
                    policy.share(
                        SlotShare(self.dispatchers, number + int(now)) if starves else SlotShare(), now
                    )
                    for at, load in enumerate(self.running):
                        policy.report(at, load, now)
                if kind == "report" or number == who:
                    self._start(number, policy, waiting[number], now, events, numbers)
        return self.latencies

    def _starves(self, policy: Policy, line: Line, now: float) -> bool:
        share = SLOTS * len(SPEEDS) / self.dispatchers
        return bool(line) and now - line[0][0] > STARVING_S and 2 * sum(policy.mine) < share

    def _start(
        self,
        who: int,
        policy: Policy,
        waiting: Line,
        now: float,
        events: list[tuple[float, int, str, tuple[int, int, float]]],
        numbers: itertools.count[int],
    ) -> None:
        while waiting:
            started = policy.start_one(waiting, now)
            if started is None:
                return
            number, place = started
            if self.running[place] >= SLOTS:  # others were there first: it refuses
                policy.refused(place, now)
                continue
            arrived, tokens = waiting[number]
            del waiting[number]
            self.running[place] += 1
            policy.mine[place] += 1
            policy.changed(place, now)
            heapq.heappush(
                events, (now + tokens / SPEEDS[place], next(numbers), "ends", (who, place, arrived))
            )


def percentile(seconds: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed."""
    return sorted(seconds)[int(share * len(seconds))]


def main() -> None:
    """Print both tables."""
    print(f"{'replicas':>9}{'decision p50':>14}{'p99':>9}{'two updates p50':>17}   µs")
    for replicas in (100, 1_000, 10_000):
        median, p99, update = time_decisions(replicas)
        print(f"{replicas:>9,}{median:>14.1f}{p99:>9.1f}{update:>17.1f}")
    print(f"\nfour nodes of {SPEEDS} tokens/s, {SLOTS} slots each, {REQUESTS:,} requests; seconds, p50 / p99")
    for dispatchers in (1, 3):
        print(f"{dispatchers} dispatcher{'s' * (dispatchers > 1)}")
        print(f"{'':<20}" + "".join(f"{f'load {load:.0%}':>16}" for load in LOADS))
        for policy in POLICIES:
            row = []
            for load in LOADS:
                seconds = Simulation(policy, load, dispatchers, seed=7).run()
                row.append(f"{percentile(seconds, 0.5):.2f} / {percentile(seconds, 0.99):.2f}")
            print(f"{policy:<20}" + "".join(f"{cell:>16}" for cell in row), flush=True)


if __name__ == "__main__":
    main()
