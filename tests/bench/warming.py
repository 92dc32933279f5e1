"""Time to the first token from a model that has to be loaded, and from one that was loaded ahead.

`python -m tests.bench.warming [--times 10]`: an ONNX node has memory for SmolLM2-135M or for an encoder. The
chat model is asked for while the other is in memory (cold), and after it was loaded ahead as a forecast would
(warmed), in turns. Then the share of cold starts on the made-up trace of `tests/orchestration/rhythm.py`, in
its last week, without the forecast and with it.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import tempfile
import time
from contextlib import aclosing
from pathlib import Path
from typing import cast

import uvloop

from actors.bus.subjects import NodeAddress
from actors.engine.onnx_backend import OnnxBackend
from actors.node.process import run_node
from actors.node.settings import NodeSettings
from actors.runtime.envelope import Envelope
from actors.runtime.system import ActorSystem
from orchestration.forecast import Forecast
from orchestration.messages import LoadModel, TextDelta, UnloadModel
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import LocalCluster, local_cluster
from tests.fixtures.models import minilm_folder, smollm2_folder
from tests.fixtures.nats import start_nats
from tests.fixtures.small_memory import of
from tests.orchestration.rhythm import WEEK_S, WarmedNode, trace

CHAT, OTHER = "smollm2-135m", "all-minilm-l6-v2"
MEMORY_MB = 150
NODE = "warming"


async def tell(cluster: LocalCluster, wanted: LoadModel | UnloadModel) -> None:
    address = NodeAddress(NODE)
    subject = address.load if isinstance(wanted, LoadModel) else address.unload
    await cluster.bus.request(subject, wanted.model_dump_json().encode(), timeout=60)


async def first_token_s(cluster: LocalCluster) -> float:
    """Of a short prompt, whose tokens are not kept from before."""
    began = time.perf_counter()
    generation = of(cluster, CHAT, f"What do bees make at {time.time()}?", tokens=2)
    took = 0.0
    async with aclosing(cluster.streams.stream(generation, Envelope.within(60))) as events:
        async for event in events:
            if isinstance(event, TextDelta) and not took:
                took = time.perf_counter() - began
    return took


async def cold_and_warmed(url: str, times: int) -> None:
    async with local_cluster(url) as cluster:
        backend = OnnxBackend([smollm2_folder(), minilm_folder()])
        settings = NodeSettings(id=NODE, memory_mb=MEMORY_MB)
        node = await cluster.stack.enter_async_context(
            run_node(cluster.node_bus, backend, settings, ActorSystem())
        )
        dispatcher = await cluster.dispatcher(sees=0)
        await eventually(lambda: dispatcher.registry.serving(CHAT))
        took: dict[str, list[float]] = {"cold": [], "warmed": []}
        for _ in range(times):
            for how, found in took.items():
                await tell(cluster, UnloadModel(model=CHAT))
                await tell(cluster, LoadModel(model=OTHER))
                if how == "warmed":
                    await tell(cluster, LoadModel(model=CHAT, ahead=True, leaving=(OTHER,)))
                found.append(await first_token_s(cluster))
        for how, found in took.items():
            print(f"first token {how:8} p50 {statistics.median(found):.3f} s  worst {max(found):.3f} s")
        use = node.describe().memory
        print(f"the node counted {use.cold} cold, {use.warmed} warmed, {use.hits} hits")


def on_the_trace() -> None:
    asked = list(trace(3))
    for name, forecast in (("without", None), ("with", Forecast())):
        found = WarmedNode(forecast).run(iter(asked), 2 * WEEK_S)
        share = found["cold"] / sum(found.values())
        print(f"trace {name:8} the forecast: {found['cold']} cold of {sum(found.values())} ({share:.2%})")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=10)
    times = cast(int, parser.parse_args().times)
    with tempfile.TemporaryDirectory(prefix="orchestra-bench-") as folder:
        nats = start_nats(Path(folder))
        try:
            await cold_and_warmed(nats.url, times)
        finally:
            nats.stop()
    on_the_trace()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
