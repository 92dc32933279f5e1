"""What a second node takes off the tail, and what it costs: with hedging and without, by turns in one run.

`python -m tests.bench hedging` asks three echo nodes, 3 % of whose generations take two seconds longer to
their first token, 24 at once. A good backend has no such generations; a garbage collection, a noisy neighbour
or a cold cache has.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from prometheus_client import REGISTRY

from actors.runtime.envelope import Envelope
from orchestration.messages import GenerationEnd
from orchestration.placement import HedgeSettings
from tests.fixtures.local_cluster import SETTINGS, LocalCluster, local_cluster
from tests.fixtures.nats import start_nats

NODES = 3
AT_ONCE = 24
REQUESTS = 1_000
WARM = 100
"""The first of them, while the times are learnt; not counted."""
ROUNDS = 3
NODE: dict[str, Any] = {"slots": 16, "speed": 200, "first_token_s": 0.1, "slow_every": 33, "slow_s": 2.0}
WITH, WITHOUT = "with hedging", "without"
MODES = {WITHOUT: HedgeSettings(share=0), WITH: HedgeSettings()}


@dataclass(slots=True)
class Figures:
    """Seconds to the first token, and generations that nodes were sent for so many requests."""

    first: list[float] = field(default_factory=list)
    sent: float = 0
    asked: int = 0


async def first_token_s(cluster: LocalCluster) -> float:
    """Of one request, which is read to its end."""
    asked = time.perf_counter()
    first = 0.0
    async with aclosing(cluster.streams.stream(cluster.generation(tokens=8), Envelope.within(60))) as events:
        async for event in events:
            if not first and not isinstance(event, GenerationEnd):
                first = time.perf_counter() - asked
    return first


def sent_to_nodes(cluster: LocalCluster) -> float:
    return sum(
        REGISTRY.get_sample_value("orchestra_placement_placed_total", {"model": cluster.model, "node": node})
        or 0.0
        for node in cluster.nodes
    )


async def play(url: str, settings: HedgeSettings, figures: Figures) -> None:
    """One round on nodes of its own."""
    async with local_cluster(url) as cluster:
        for _ in range(NODES):
            await cluster.node(**NODE)
        await cluster.dispatcher(SETTINGS.model_copy(update={"hedging": settings}))
        left = iter(range(REQUESTS))
        first: list[float] = []

        async def caller() -> None:
            while next(left, None) is not None:
                first.append(await first_token_s(cluster))

        await asyncio.gather(*(caller() for _ in range(AT_ONCE)))
        figures.first += first[WARM:]
        figures.asked += REQUESTS
        figures.sent += sent_to_nodes(cluster)


def show(name: str, figures: Figures) -> None:
    cuts = statistics.quantiles(figures.first, n=1000, method="inclusive")
    print(
        f"{name:14}{len(figures.first):6} requests  first token p50 {cuts[499] * 1e3:7.1f} ms"
        f"  p95 {cuts[949] * 1e3:7.1f} ms  p99 {cuts[989] * 1e3:7.1f} ms  p99.9 {cuts[998] * 1e3:7.1f} ms"
        f"  added traffic {100 * (figures.sent / figures.asked - 1):4.1f} %"
    )


async def main() -> None:
    """All rounds, on a server of its own."""
    figures = {name: Figures() for name in MODES}
    with tempfile.TemporaryDirectory() as folder:
        nats = start_nats(Path(folder))
        try:
            for _ in range(ROUNDS):
                for name, settings in MODES.items():
                    await play(nats.url, settings, figures[name])
        finally:
            nats.stop()
    for name in MODES:
        show(name, figures[name])


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
