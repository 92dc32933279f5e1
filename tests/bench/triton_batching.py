"""A mixed load of queries on the embedding ensemble in Triton: quiet, pressure, quiet again.

`python -m tests.bench.triton_batching` sends it to four servers one after another: without dynamic batching,
with that of the repository (no wait), with a wait of 20 ms that is always in force, and with the wait moved
with the load within a target of 0.1 s. In the quiet phases one caller pauses between its texts; under
pressure texts come as from many independent callers, and every two seconds some more at once, up to 32.
Told for each phase are the answer times, texts a second, processor time of the server for each (its reloads
included), texts in a call of the encoder (since the last reload), the wait in force at the end, and reloads.

The policy's times are made short to fit the phases: a change may follow another after 3 s, not 60.

What to expect of this model on two cores: to move the wait adds nothing to the repository's. A wait of 20 ms
under pressure saved a fifth of the processor time (4.9 against 6.2 ms a text) and made no answer earlier, and
when it is quiet it costs all of itself (30 against 8 ms); the policy left the wait at 0, without a reload.
Times of answers under pressure are near what the machine bears: they differ threefold between two servers of
the same setting. A wait pays where a batch costs much whatever is in it;
tests/actors/triton/backend/test_tuning.py has such a model, for which it comes and goes.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path
from random import Random

from tritonclient.grpc import service_pb2
from tritonclient.grpc.aio import InferenceServerClient

from actors.triton.backend.backend import TritonBackend
from actors.triton.backend.settings import TritonSettings
from tests.bench.triton_embedding import MODEL, TEXTS, cpu_s, embed, served
from tests.fixtures.triton import RunningTriton

ENCODER = f"{MODEL}-encoder"
PHASES = {"quiet": 4.0, "pressure sets in": 10.0, "pressure goes on": 10.0, "quiet again": 10.0}
RATE = 200.0
"""Texts a second under pressure, about what two cores bear without batching, with the client beside it."""
BURST_EVERY_S = 2.0
PAUSE_S = 0.1
AT_ONCE = 256
LONG_WAIT_US = 20_000
TARGET_S = 0.1
PACE = {"batching_target_s": TARGET_S, "watch_s": 0.25, "batching_hold_s": 3.0, "batching_calm_s": 4.0}


@dataclass(slots=True)
class Load:
    """What is asked of one server, and how long each answer took in seconds."""

    client: InferenceServerClient
    took: list[float] = field(default_factory=list)
    random: Random = field(default_factory=lambda: Random(7))
    free: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(AT_ONCE))

    async def ask(self, text: str) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with self.free:
            await embed(self.client, text)
        self.took.append(loop.time() - began)

    async def quiet(self, texts: Sequence[str], seconds: float) -> None:
        until = asyncio.get_running_loop().time() + seconds
        for text in cycle(texts):
            if asyncio.get_running_loop().time() > until:
                return
            await self.ask(text)
            await asyncio.sleep(PAUSE_S)

    async def pressure(self, texts: Sequence[str], seconds: float) -> None:
        began = asyncio.get_running_loop().time()
        arrivals = [self.random.expovariate(RATE)]
        while arrivals[-1] < seconds:
            arrivals.append(arrivals[-1] + self.random.expovariate(RATE))
        for burst in range(int(seconds / BURST_EVERY_S)):
            arrivals += [burst * BURST_EVERY_S] * self.random.randint(8, 32)
        async with asyncio.TaskGroup() as group:
            for at, text in zip(sorted(arrivals), cycle(texts), strict=False):
                await asyncio.sleep(began + at - asyncio.get_running_loop().time())
                group.create_task(self.ask(text))


@asynccontextmanager
async def adapted(server: RunningTriton) -> AsyncIterator[None]:
    """A node's backend watches the server and moves the wait; the load does not go through it."""
    said = {"url": server.url, "metrics_url": server.metrics_url, "models": {MODEL: MODEL}}
    backend = TritonBackend(TritonSettings.model_validate(said | PACE))
    await backend.start()
    try:
        yield
    finally:
        await backend.close()


async def encoder(client: InferenceServerClient) -> service_pb2.ModelStatistics:
    return (await client.get_inference_statistics(ENCODER)).model_stats[0]


def reloads(server: RunningTriton) -> int:
    return server.log.count(f"successfully loaded '{ENCODER}'")


async def phase(server: RunningTriton, client: InferenceServerClient, name: str) -> str:
    texts, load = next(iter(TEXTS.values())), Load(client)
    before, cpu, loads = await encoder(client), cpu_s(server), reloads(server)
    began = asyncio.get_running_loop().time()
    run = load.pressure if name.startswith("pressure") else load.quiet
    await run(texts, PHASES[name])
    seconds, took = asyncio.get_running_loop().time() - began, sorted(load.took)
    after = await encoder(client)
    if after.execution_count < before.execution_count or reloads(server) > loads:
        before = service_pb2.ModelStatistics()
    calls = max(1, after.execution_count - before.execution_count)
    config = (await client.get_model_config(ENCODER)).config
    return (
        f"p50 {1e3 * took[len(took) // 2]:5.1f} ms  p99 {1e3 * took[len(took) * 99 // 100]:5.1f} ms  "
        f"{len(took) / seconds:4.0f}/s  {1e3 * (cpu_s(server) - cpu) / len(took):5.2f} ms CPU  "
        f"{(after.inference_count - before.inference_count) / calls:4.1f} in a call  "
        f"wait {config.dynamic_batching.max_queue_delay_microseconds / 1e3:4.1f} ms  "
        f"{reloads(server) - loads} reloads"
    )


async def measure(server: RunningTriton, name: str) -> None:
    client = InferenceServerClient(server.address)
    try:
        await Load(client).quiet(next(iter(TEXTS.values())), 1.0)  # the first texts pay for the start
        for each in PHASES:
            print(f"{each:17} {name:12} {await phase(server, client, each)}", flush=True)
    finally:
        await client.close()


def wait_always(server: RunningTriton) -> None:
    file = server.repository / ENCODER / "config.pbtxt"
    wait = f"max_queue_delay_microseconds: {LONG_WAIT_US}"
    file.write_text(re.sub(r"max_queue_delay_microseconds: \d+", wait, file.read_text()))
    server.load(ENCODER)


async def adaptive(server: RunningTriton) -> None:
    async with adapted(server):
        await measure(server, "adaptive")


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="orchestra-bench-") as folder:
        for name in ("no batching", "as set", "20 ms always", "adaptive"):
            server = served(Path(folder) / name.replace(" ", "-"), batching=name != "no batching")
            try:
                if name == "20 ms always":
                    wait_always(server)
                asyncio.run(adaptive(server) if name == "adaptive" else measure(server, name))
            finally:
                server.stop()


if __name__ == "__main__":
    main()
