"""How long a request may overtake one that waits already: the time until another caller knows of a backlog.

`python -m tests.bench.overtaking` lets one caller's generation find a full node, and measures how long it
takes from its request until a second caller, on a connection of its own, sends its generations behind it.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import uvloop

from actors.bus.bus import Bus, BusSettings
from actors.bus.subjects import BACKLOG_SUBJECT
from actors.placement.backlog import BacklogMonitor
from tests.bench.placement import percentile
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import LocalCluster, local_cluster
from tests.fixtures.nats import start_nats

ROUNDS = 60


async def one(cluster: LocalCluster, backlog: BacklogMonitor, reported: asyncio.Event) -> float:
    """Milliseconds until `backlog` has the model, in one round. `reported` is set with each report."""
    held = asyncio.ensure_future(cluster.ask(cluster.generation("a b c d e f", tokens=12)))
    await eventually(lambda: sum(cluster.running().values()) == 1)
    began = time.perf_counter()
    waits = asyncio.ensure_future(cluster.ask(cluster.generation("x")))
    reported.clear()
    await reported.wait()
    assert backlog.waits(cluster.model)
    milliseconds = (time.perf_counter() - began) * 1e3
    await asyncio.gather(held, waits)
    await eventually(lambda: not backlog.waits(cluster.model))
    return milliseconds


async def main() -> None:
    """Print the median and the largest."""
    with tempfile.TemporaryDirectory(prefix="orchestra-bench-") as folder:
        nats = start_nats(Path(folder))
        try:
            async with local_cluster(nats.url, direct=True) as cluster:
                await cluster.node(slots=1, speed=100)
                await cluster.dispatcher()
                bus = await Bus.connect(BusSettings(url=nats.url), name="another caller")
                backlog = BacklogMonitor(bus)
                await backlog.start()
                reported = asyncio.Event()
                await bus.subscribe(BACKLOG_SUBJECT, lambda message: reported.set())
                taken = [await one(cluster, backlog, reported) for _ in range(ROUNDS)]
                await backlog.stop()
                await bus.close()
        finally:
            nats.stop()
    print(
        f"a backlog is known to another caller after {statistics.median(taken):.1f} ms "
        f"(p90 {percentile(taken, 0.9):.1f}, largest {max(taken):.1f} of {ROUNDS})"
    )


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
