"""The whole path of a generation but HTTP: bus, queue, dispatcher, node with the echo backend.

`python -m tests.bench.path` prints requests per second, latency and CPU per generation, alone and many at
once, all in one process beside a real nats-server. `--profile FILE` writes a cProfile of the busiest run.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.bus import Bus, BusSettings
from actors.bus.declarations import shipped_declaration
from actors.bus.provision import apply
from actors.cluster.registry import Registry
from actors.dispatcher import DispatcherSettings
from actors.dispatcher.process import run_dispatcher
from actors.launch.process import freeze_garbage_collector
from actors.node.process import run_node
from actors.node.settings import NodeSettings
from actors.placement.direct import DirectPath
from actors.runtime.envelope import Envelope
from actors.runtime.system import ActorSystem
from actors.streams.client import StreamClient
from orchestration.messages import ChatGeneration, ChatMessage
from tests.fixtures.nats import start_nats

WIDTHS = (1, 32, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Of one width: latencies and CPU in milliseconds."""

    at_once: int
    per_second: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float

    def row(self) -> str:
        return (
            f"{self.at_once:>8} {self.per_second:>12.0f} {self.p50_ms:>9.2f} {self.p99_ms:>9.2f} "
            f"{self.cpu_ms:>16.3f}"
        )


@asynccontextmanager
async def path(url: str, *, direct: bool) -> AsyncIterator[StreamClient]:
    """A node and a dispatcher on one bus, and an asker on it, ready to be used."""
    async with AsyncExitStack() as stack:
        bus = await Bus.connect(BusSettings(url=url), name="bench")
        stack.push_async_callback(bus.close)
        await apply(bus, shipped_declaration())
        system = ActorSystem()
        backend = EchoBackend(EchoSettings(slots=128))
        await stack.enter_async_context(run_node(bus, backend, NodeSettings(id="bench"), system))
        registry = Registry(bus)
        await registry.start()
        stack.push_async_callback(registry.stop)
        settings = DispatcherSettings(direct=direct)
        await stack.enter_async_context(run_dispatcher(bus, settings, system, registry))
        streams = StreamClient(bus, direct=DirectPath(bus, registry, settings))
        await streams.start()
        stack.push_async_callback(streams.stop)
        yield streams


async def one(streams: StreamClient, words: str) -> float:
    """Ask once; seconds from the question to the end of the answer."""
    began = time.perf_counter()
    generation = ChatGeneration(
        id=streams.new_id(), model="echo", messages=(ChatMessage(role="user", content=words),)
    )
    async with aclosing(streams.stream(generation, Envelope.within(30))) as events:
        async for _ in events:
            pass
    return time.perf_counter() - began


async def many(streams: StreamClient, at_once: int, total: int, words: str) -> Figures:
    """Ask `total` times, `at_once` at any moment."""
    left = iter(range(total))
    taken: list[float] = []

    async def worker() -> None:
        taken.extend([await one(streams, words) for _ in left])

    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(worker() for _ in range(at_once)))
    seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
    ordered = sorted(taken)
    return Figures(
        at_once=at_once,
        per_second=total / seconds,
        p50_ms=statistics.median(ordered) * 1e3,
        p99_ms=ordered[int(len(ordered) * 0.99)] * 1e3,
        cpu_ms=cpu / total * 1e3,
    )


async def measure(url: str, profile: Path | None, words: str, *, direct: bool) -> list[Figures]:
    """Figures for each width, after a warm-up."""
    async with path(url, direct=direct) as streams:
        freeze_garbage_collector()
        await many(streams, 16, 200, words)
        figures = [await many(streams, width, 500 if width == 1 else 4000, words) for width in WIDTHS]
        if profile is not None:
            profiler = cProfile.Profile()
            profiler.enable()
            await many(streams, WIDTHS[-1], 4000, words)
            profiler.disable()
            profiler.dump_stats(profile)
        return figures


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--profile", type=Path)
    parser.add_argument("--words", default="four words go around")
    parser.add_argument("--queued", action="store_true", help="send everything through the queue")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orchestra-bench-") as folder:
        server = start_nats(Path(folder))
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                figures = runner.run(
                    measure(server.url, arguments.profile, arguments.words, direct=not arguments.queued)
                )
        finally:
            server.stop()
    print(f"{'at once':>8} {'answers/s':>12} {'p50 ms':>9} {'p99 ms':>9} {'CPU ms / answer':>16}")
    for each in figures:
        print(each.row())


if __name__ == "__main__":
    main()
