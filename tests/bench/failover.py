"""How long a stream stands still when its node is killed, and how long an engine works for nobody.

`python -m tests.bench.failover` kills echo nodes, each a process, in the middle of a stream that comes at 50
tokens a second: until the first text of the next node, from SIGKILL and from when its sender saw the death.
Then clients leave streams at 200 tokens a second: from the leaving to the engine's stop. With `--queued`
every generation goes through the queue.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import statistics
import sys
import tempfile
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from actors.placement.executor import Executor
from actors.runtime.envelope import Envelope
from orchestration.messages import GenerationEnd
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import SETTINGS, LocalCluster, local_cluster
from tests.fixtures.nats import start_nats
from tests.fixtures.process import Process, orchestra

LANES = 4
"""Models that have nodes of their own, one of which is killed in each round."""
ROUNDS = 13
LEAVES = 300


@dataclass(slots=True)
class Lane:
    """A model, its nodes (one to kill, one to go on with) and its streams, one in each round."""

    cluster: LocalCluster
    executor: Executor
    model: str
    folder: Path
    deaths: dict[str, float]
    """When whoever had sent generations there saw each."""
    nodes: dict[str, Process] = field(default_factory=dict)
    from_kill: list[float] = field(default_factory=list)
    from_seen: list[float] = field(default_factory=list)

    async def start(self) -> None:
        """One more node at 50 tokens a second, known to the executor."""
        name = f"{self.model.replace('/', '-')}-{len(self.nodes)}"
        self.nodes[name] = orchestra(
            *("node", "--backend", "echo", "--id", name, "--serve", self.model, "--speed", "50"),
            *("--nats", self.cluster.bus.settings.url, "--data", str(self.folder)),
        )
        await eventually(lambda: name in self.executor.registry.nodes, within_s=60)

    async def kill(self) -> None:
        """Kill the node of a stream, and time how long the stream stands still."""
        victim, at = "", 0.0
        generation = self.cluster.generation("these words go on and on", tokens=10_000)
        generation = generation.model_copy(update={"model": self.model})
        opened = self.cluster.streams.readers
        async with aclosing(self.cluster.streams.stream(generation, Envelope.within(60))) as events:
            read = 0
            async for event in events:
                assert not isinstance(event, GenerationEnd)
                read += 1
                if read == 11:
                    (victim,) = self.nodes.keys() & self.executor.in_flight.counts.keys()
                    at = time.perf_counter()
                    self.nodes[victim].send(signal.SIGKILL)
                if at and opened[generation.id].handed_off:
                    now = time.perf_counter()
                    self.from_kill.append(now - at)
                    self.from_seen.append(now - self.deaths[victim])
                    return
        raise AssertionError("no end")


async def kill_in_rounds(cluster: LocalCluster, folder: Path) -> None:
    """In each round, every lane gets one more node and loses one."""
    dispatcher = await cluster.dispatcher(SETTINGS)
    deaths: dict[str, float] = {}
    executor = cluster.executor(dispatcher)
    executor.node_health.on_silent.insert(0, lambda node: deaths.update({node: time.perf_counter()}))
    lanes = [Lane(cluster, executor, f"{cluster.model}/{n}", folder, deaths) for n in range(LANES)]
    try:
        await asyncio.gather(*(lane.start() for lane in lanes))
        for _ in range(ROUNDS):
            await asyncio.gather(*(lane.start() for lane in lanes))
            await asyncio.gather(*(lane.kill() for lane in lanes))
    finally:
        for process in [process for lane in lanes for process in lane.nodes.values()]:
            process.send(signal.SIGKILL)
            process.__exit__(None, None, None)
    show("killed: from the kill to the next node's text", [each for lane in lanes for each in lane.from_kill])
    show("killed: from the death being seen to it", [each for lane in lanes for each in lane.from_seen])


async def left(cluster: LocalCluster) -> float:
    """Seconds that the engine went on after its client had left."""
    generation = cluster.generation("these words go on and on", tokens=10_000)
    node = cluster.nodes["left"]
    async with aclosing(cluster.streams.stream(generation, Envelope.within(60))) as events:
        for _ in range(4):
            await anext(events)
        at = time.perf_counter()
    while generation.id in node._active:  # noqa: ASYNC110
        await asyncio.sleep(0)
    return time.perf_counter() - at


def show(what: str, seconds: list[float]) -> None:
    """p50, p99 and the worst in milliseconds."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    print(
        f"{what:44}{len(seconds):6} times  p50 {cuts[49] * 1e3:8.1f} ms"
        f"  p99 {cuts[98] * 1e3:8.1f} ms  worst {max(seconds) * 1e3:8.1f} ms"
    )


async def main(*, direct: bool) -> None:
    """All figures, on a server of its own."""
    logging.disable(logging.WARNING)  # each death
    with tempfile.TemporaryDirectory() as folder:
        nats = start_nats(Path(folder) / "nats")
        try:
            async with local_cluster(nats.url, direct=direct) as cluster:
                await kill_in_rounds(cluster, Path(folder))
            async with local_cluster(nats.url, direct=direct) as cluster:
                await cluster.node("left", speed=200)
                await cluster.dispatcher(SETTINGS)
                show(
                    "left: from the client's leaving to the stop",
                    [await left(cluster) for _ in range(LEAVES)],
                )
        finally:
            nats.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(direct="--queued" not in sys.argv))
