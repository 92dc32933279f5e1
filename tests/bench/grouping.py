"""Swaps and time where a node holds one of the models that are asked for: by turns and in order of arrival.

`python -m tests.bench grouping` runs an echo node and a dispatcher, each a process; loading a model takes
0.2 s, a generation 0.1 s, and four run at once. First all requests wait from the beginning, interleaved; then
four callers for each model ask one after another. Both policies are the dispatcher's own:
`dispatcher.group_hold_s` of 0 is the order of arrival.
"""

from __future__ import annotations

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from uuid import uuid4

import uvloop

from orchestration.messages import MemoryUse
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import LocalCluster, local_cluster
from tests.fixtures.nats import start_nats
from tests.fixtures.process import orchestra
from tests.fixtures.small_memory import of

REQUESTS = 48
CALLERS = 4
LOAD_S, SPEED, TOKENS = 0.2, 200, 20
HOLD_S = 2.0

Load = Callable[[LocalCluster, list[str]], Awaitable[list[float]]]


async def asked(cluster: LocalCluster, model: str) -> float:
    """Seconds until the whole answer is here."""
    began = time.perf_counter()
    await cluster.ask(of(cluster, model, tokens=TOKENS), within_s=120)
    return time.perf_counter() - began


async def at_once(cluster: LocalCluster, models: list[str]) -> list[float]:
    """All wait from the beginning, model after model in turn."""
    names = itertools.islice(itertools.cycle(models), REQUESTS)
    return await asyncio.gather(*(asked(cluster, name) for name in names))


async def one_after_another(cluster: LocalCluster, models: list[str]) -> list[float]:
    """Some callers for each model."""
    share = REQUESTS // (CALLERS * len(models))

    async def call(model: str) -> list[float]:
        return [await asked(cluster, model) for _ in range(share)]

    took = await asyncio.gather(*(call(model) for model in models for _ in range(CALLERS)))
    return list(itertools.chain(*took))


async def measure(url: str, folder: str, count: int, load: Load, hold_s: float) -> None:
    """One load under one policy, and its line."""
    async with AsyncExitStack() as stack:
        cluster = await stack.enter_async_context(local_cluster(url))
        name = f"node-{uuid4().hex[:6]}"
        models = [f"{cluster.model}-{letter}" for letter in "abcd"[:count]]
        serve = [word for model in models for word in ("--serve", model)]
        common = ("--nats", url, "--data", folder)
        sizes = ("--model-mb", "100", "--memory-mb", "100", "--load-s", str(LOAD_S))
        pace = ("--slots", "4", "--speed", str(SPEED))
        node = stack.enter_context(
            orchestra("node", "--backend", "echo", "--id", name, *serve, *sizes, *pace, *common)
        )
        dispatcher = stack.enter_context(
            orchestra("dispatcher", *common, ORCHESTRA_DISPATCHER__GROUP_HOLD_S=str(hold_s))
        )
        await asyncio.to_thread(node.wait_for, "serves")
        await asyncio.to_thread(dispatcher.wait_for, "dispatcher is ready")
        registry = await cluster.registry()
        await eventually(lambda: name in registry.nodes)

        def use() -> MemoryUse:
            return registry.nodes[name].memory

        began = time.perf_counter()
        took = await load(cluster, models)
        seconds = time.perf_counter() - began
        await eventually(lambda: not registry.nodes[name].running)
        cuts = statistics.quantiles(took, n=100, method="inclusive")
        policy = f"turns of {hold_s:.0f} s" if hold_s else "order of arrival"
        print(
            f"{count} models, {load.__name__.replace('_', ' '):18}{policy:18}{use().swaps:4} swaps"
            f"  all {len(took)} after {seconds:5.1f} s  p50 {cuts[49]:5.2f} s"
            f"  p99 {cuts[98]:5.2f} s",
            flush=True,
        )


async def main() -> None:
    """Two to four models, each load under each policy, on one server."""
    with tempfile.TemporaryDirectory(prefix="orchestra-bench-") as folder:
        nats = start_nats(Path(folder) / "nats")
        try:
            for count, load, hold_s in itertools.product(
                (2, 3, 4), (at_once, one_after_another), (0.0, HOLD_S)
            ):
                await measure(nats.url, f"{folder}/data", count, load, hold_s)
        finally:
            nats.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
