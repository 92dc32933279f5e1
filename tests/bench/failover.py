"""How long a stream stands still when its node is killed, and how long an engine works for nobody.

`python -m tests.bench.failover` kills echo nodes, each a process, in the middle of a stream that comes at 50
tokens a second: from SIGKILL to the first text of the next node, the time until the death is noticed
included. Then clients leave streams at 200 tokens a second: from the leaving to the engine's stop.
"""

from __future__ import annotations

import asyncio
import signal
import statistics
import tempfile
import time
from contextlib import aclosing
from pathlib import Path

import uvloop

from actors.dispatcher import Dispatcher
from actors.runtime.envelope import Envelope
from orchestration.messages import Ended
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import start_nats
from tests.fixtures.process import Process, orchestra
from tests.fixtures.stage import SETTINGS, Stage
from tests.fixtures.stage import stage as set_up

KILLS = 24
LEAVES = 300
SPARE = 3
"""Nodes that are up while one is killed, so that none has to be waited for."""


def start(stage: Stage, url: str, folder: Path, name: str) -> Process:
    """One more node at 50 tokens a second."""
    return orchestra(
        *("node", "--backend", "echo", "--id", name, "--serve", stage.model, "--speed", "50"),
        *("--nats", url, "--data", str(folder)),
    )


async def killed(stage: Stage, dispatcher: Dispatcher, nodes: dict[str, Process]) -> float:
    """Seconds for which one stream stood still."""
    at = 0.0
    generation = stage.generation("these words go on and on", tokens=10_000)
    async with aclosing(stage.asker.stream(generation, Envelope.within(60))) as events:
        async for event in events:
            assert not isinstance(event, Ended)
            if event.seq == 10:
                victim = next(iter(dispatcher._in_flight.counts))
                at = time.perf_counter()
                nodes.pop(victim).send(signal.SIGKILL)
            if at and stage.asker._open[generation.id]._handed_over:
                return time.perf_counter() - at
    raise AssertionError("no end")


async def left(stage: Stage) -> float:
    """Seconds that the engine went on after its client had left."""
    generation = stage.generation("these words go on and on", tokens=10_000)
    node = stage.nodes["left"]
    async with aclosing(stage.asker.stream(generation, Envelope.within(60))) as events:
        async for event in events:
            if event.seq == 3:
                at = time.perf_counter()
                break
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


async def main() -> None:
    """Both figures, on a server of its own."""
    with tempfile.TemporaryDirectory() as folder:
        nats = start_nats(Path(folder) / "nats")
        processes: list[Process] = []
        try:
            async with set_up(nats.url) as stage:
                dispatcher = await stage.dispatcher(SETTINGS)
                alive: dict[str, Process] = {}
                stood: list[float] = []
                for number in range(KILLS + SPARE):
                    name = f"n{number}"
                    alive[name] = start(stage, nats.url, Path(folder), name)
                    processes.append(alive[name])
                    await eventually(lambda name=name: name in dispatcher.registry.nodes, within_s=30)  # type: ignore[misc]
                    if number >= SPARE:
                        stood.append(await killed(stage, dispatcher, alive))
                show("killed: from the kill to the next node's text", stood)
            async with set_up(nats.url) as stage:
                await stage.node("left", speed=200)
                await stage.dispatcher(SETTINGS)
                show(
                    "left: from the client's leaving to the stop", [await left(stage) for _ in range(LEAVES)]
                )
        finally:
            for process in processes:
                if process.process.poll() is None:
                    process.send(signal.SIGKILL)
                process.__exit__(None, None, None)
            nats.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
