"""Orchestra's placement against simpler policies, on real nodes under a real, skewed load.

`python -m tests.bench.placement_nodes` starts four echo nodes of different speed, each a process, and asks
them through the real queue and a real dispatcher. Requests come at random moments (Poisson), whether or not
earlier ones are answered, at `LOAD` of all that the nodes can do, with lengths from a geometric distribution.
Every policy gets the same moments and lengths, in `ROUNDS` short rounds by turns, so that what else the
machine does hits all. Once each caller limits its answer to its length, so that a dispatcher can know it;
once nobody says anything.

The rivals get what is Orchestra's beside the choice itself: no node is asked for more than its slots, and
what finds none free waits in the one queue. Latencies are from asking to the end of the answer.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import uvloop

from actors.dispatcher import Dispatcher, DispatcherSettings
from orchestration.messages import NodeInfo
from orchestration.placement import Choice, Chooser, Deferral, Needs
from orchestration.placement.scoring import score
from tests.bench.placement import percentile
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import LocalCluster, local_cluster
from tests.fixtures.nats import start_nats
from tests.fixtures.process import Process, orchestra

SPEEDS = {"fast": 200, "good": 100, "fair": 50, "slow": 20}
"""Tokens a second for each generation."""
SLOTS = 4
MEAN_TOKENS = 20
MOST_TOKENS = 200
LOAD = 0.85
ROUNDS = 3
REQUESTS = 500
"""Of each policy and kind in a round, the first `WARM` of which are not counted."""
WARM = 50
PATIENCE_S = 60.0


class Rival(Chooser):
    """Chooses among the nodes with a free slot, which `view` knows."""

    def __init__(self, own: Chooser) -> None:
        super().__init__(own.settings)
        self.index = own.index
        self.last = -1

    def choose(
        self,
        needs: Needs,
        now: float,
        *,
        without: frozenset[str] = frozenset(),
        ahead: int = 0,
        waited_s: float = 0.0,
        patient: bool = True,
        sure: bool = False,
        loaded: bool = False,
    ) -> Choice | Deferral:
        loads = self.index.nodes
        free = sorted(name for name, load in loads.items() if load.free and name not in without)
        if not free:
            return Deferral(None)
        node = self.pick(free)
        return Choice(loads[node].info, score(self.index.replicas[needs.model][node], needs, now), False)

    def pick(self, free: list[str]) -> str:
        raise NotImplementedError


class AtRandom(Rival):
    def pick(self, free: list[str]) -> str:
        return self.random.choice(free)


class InTurn(Rival):
    def pick(self, free: list[str]) -> str:
        names = sorted(self.index.nodes)
        turns = {name: (place - self.last - 1) % len(names) for place, name in enumerate(names)}
        node = min(free, key=turns.__getitem__)
        self.last = names.index(node)
        return node


class LeastConnections(Rival):
    def pick(self, free: list[str]) -> str:
        at_work = {name: self.index.nodes[name].at_work for name in free}
        least = min(at_work.values())
        return self.random.choice([name for name in free if at_work[name] == least])


LENGTHS = {"both": (True, False), "known": (True,), "unknown": (False,)}
"""Whether the requests say how long their answers may be."""


def orchestras(own: Chooser) -> Chooser:
    return own


POLICIES = {
    "orchestra": orchestras,
    "random": AtRandom,
    "round-robin": InTurn,
    "least connections": LeastConnections,
}


@dataclass(slots=True)
class Tally:
    """Seconds that counted requests took, and how many each node answered."""

    seconds: list[float] = field(default_factory=list)
    by: Counter[str] = field(default_factory=Counter)

    async def ask(self, cluster: LocalCluster, tokens: int, told: bool) -> None:
        """Ask for so many tokens, and count how long that takes."""
        generation = cluster.generation("word " * (1 if told else tokens), tokens=tokens if told else None)
        began = time.perf_counter()
        _, ended = await cluster.ask(generation, within_s=PATIENCE_S)
        assert ended.finish.usage.completion_tokens == tokens
        self.seconds.append(time.perf_counter() - began)
        self.by[ended.finish.node] += 1

    def row(self) -> str:
        cuts = "".join(f"{percentile(self.seconds, share):>8.2f}" for share in (0.5, 0.9, 0.99))
        shares = " ".join(f"{node} {self.by[node] / len(self.seconds):.0%}" for node in SPEEDS)
        return f"{cuts}{sum(self.seconds) / len(self.seconds):>8.2f}   {shares}"


async def play(cluster: LocalCluster, told: bool, tally: Tally, seed: int) -> None:
    """One round of one policy."""
    random = Random(seed)
    rate = LOAD * SLOTS * sum(SPEEDS.values()) / MEAN_TOKENS
    warming = Tally()
    due = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for number in range(REQUESTS):
            due += random.expovariate(rate)
            tokens = min(MOST_TOKENS, 1 + int(random.expovariate(1 / MEAN_TOKENS)))
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            group.create_task((warming if number < WARM else tally).ask(cluster, tokens, told))


@asynccontextmanager
async def fleet(cluster: LocalCluster, url: str, folder: Path) -> AsyncIterator[Dispatcher]:
    """The four nodes, and a dispatcher that sees them."""
    started: list[Process] = []
    try:
        for name, speed in SPEEDS.items():
            words = ("--id", name, "--serve", cluster.model, "--slots", str(SLOTS), "--speed", str(speed))
            started.append(
                orchestra("node", "--backend", "echo", *words, "--nats", url, "--data", str(folder))
            )
        dispatcher = await cluster.dispatcher(DispatcherSettings(), sees=0)
        await eventually(lambda: len(dispatcher.registry.serving(cluster.model)) == len(SPEEDS), within_s=60)
        yield dispatcher
    finally:
        for process in started:
            process.send(signal.SIGTERM)
        for process in started:
            process.__exit__(None, None, None)


def measured(nodes: dict[str, NodeInfo], model: str) -> str:
    """What the nodes say of their rates, in tokens a second."""
    rates = {name: nodes[name].rates[model].token_s for name in SPEEDS}
    return ", ".join(f"{name} {1 / seconds:.0f}" for name, seconds in rates.items() if seconds)


async def main(*, direct: bool, lengths: str) -> None:
    """Print a table for each kind of request."""
    with tempfile.TemporaryDirectory() as folder:
        nats = start_nats(Path(folder) / "nats")
        try:
            async with (
                local_cluster(nats.url, direct=direct) as cluster,
                fleet(cluster, nats.url, Path(folder)) as dispatcher,
            ):
                placers = {dispatcher.placer, cluster.executor(dispatcher).placer}
                own = {placer: placer.chooser for placer in placers}
                await play(cluster, True, Tally(), seed=1)  # until the nodes know their rates
                print(f"the nodes measured {measured(dispatcher.registry.nodes, cluster.model)} tokens/s")
                for told in LENGTHS[lengths]:
                    tallies = {name: Tally() for name in POLICIES}
                    for seed in range(ROUNDS):
                        for name, policy in POLICIES.items():
                            for placer, chooser in own.items():
                                placer.chooser = policy(chooser)
                            await play(cluster, told, tallies[name], seed)
                    kind = "lengths known" if told else "lengths unknown"
                    way = "direct" if direct else "queued"
                    print(f"load {LOAD:.0%}, {ROUNDS * REQUESTS} requests each, {kind}, {way}")
                    print(f"{'':<20}{'p50 s':>8}{'p90 s':>8}{'p99 s':>8}{'mean s':>8}   answered by")
                    for name, tally in tallies.items():
                        print(f"{name:<20}{tally.row()}", flush=True)
        finally:
            nats.stop()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--queued", action="store_true", help="send everything through the queue")
    parser.add_argument("--lengths", choices=LENGTHS, default="both", help="of answers, to the placement")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(direct=not options.queued, lengths=options.lengths))
