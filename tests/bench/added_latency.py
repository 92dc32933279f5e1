"""What the whole path adds to the first token and to each chunk, over the bare backend.

    python -m tests.bench.added_latency [--pairs 40] [--chunks 30] [--interval-ms 25]

One paced upstream writes into each chunk the moment it sent it (the monotonic clock, which all processes of
a machine share). The same chat is asked of it in turn through an `OpenAIBackend` alone, in this process, and
through Orchestra's HTTP API: gateway, queue, dispatcher, node with the same backend, and back. A chunk's
transit is from its stamp to its arrival here. 40 chunks a second lie below where streams are coalesced.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import statistics
import time
from dataclasses import dataclass, field

import aiohttp
import uvloop

from actors.backends.openai import OpenAIBackend, OpenAISettings
from orchestration.messages import ChatGeneration, ChatMessage, Sampling, TextDelta
from tests.bench.load import chat_body
from tests.bench.orchestra_serving import openai_node, serve_orchestra
from tests.fixtures.zero_upstream import zero_upstream

_STAMP = re.compile(rb"@(\d+)")
_JSON = {"Content-Type": "application/json"}
_WARM_UP = 5


@dataclass(slots=True)
class Times:
    """Milliseconds: from the question to the first chunk, of each stream; transit, of each later chunk."""

    first_ms: list[float] = field(default_factory=list)
    transit_ms: list[float] = field(default_factory=list)

    def add(self, asked_ns: int, arrivals: list[tuple[int, int]]) -> None:
        """`arrivals` are (sent, arrived) in nanoseconds."""
        self.first_ms.append((arrivals[0][1] - asked_ns) / 1e6)
        self.transit_ms += [(arrived - sent) / 1e6 for sent, arrived in arrivals[1:]]

    def row(self, name: str) -> str:
        cells = [
            f"{percentile(values, share):>9.3f}"
            for values in (self.first_ms, self.transit_ms)
            for share in (0.5, 0.99)
        ]
        return f"{name:<22}" + "".join(cells)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def ask_backend(backend: OpenAIBackend) -> tuple[int, list[tuple[int, int]]]:
    """One stream through the bare backend."""
    generation = ChatGeneration(
        id="bench.1",
        model="bench",
        messages=(ChatMessage(role="user", content="hello there"),),
        sampling=Sampling(max_tokens=16),
    )
    asked = time.monotonic_ns()
    return asked, [
        (int(output.text[1:]), time.monotonic_ns())
        async for output in backend.generate(generation)
        if isinstance(output, TextDelta)
    ]


async def ask_orchestra(session: aiohttp.ClientSession, url: str) -> tuple[int, list[tuple[int, int]]]:
    """One stream through everything."""
    arrivals = []
    asked = time.monotonic_ns()
    async with session.post(url, data=chat_body("bench", stream=True), headers=_JSON) as answer:
        answer.raise_for_status()
        while block := await answer.content.readany():
            now = time.monotonic_ns()
            arrivals += [(int(stamp), now) for stamp in _STAMP.findall(block)]
    return asked, arrivals


async def run(upstream: str, chat_url: str, pairs: int, chunks: int) -> tuple[Times, Times]:
    """Ask both sides in turn; the first few of each are not counted."""
    bare, whole = Times(), Times()
    backend = OpenAIBackend(OpenAISettings(base_url=upstream))
    await backend.start()
    async with aiohttp.ClientSession() as session:
        for index in range(_WARM_UP + pairs):
            for times, ask in (
                (bare, ask_backend(backend)),
                (whole, ask_orchestra(session, chat_url)),
            ):
                asked, arrivals = await ask
                if len(arrivals) != chunks:
                    raise RuntimeError(f"{len(arrivals)} chunks came of {chunks}")
                if index >= _WARM_UP:
                    times.add(asked, arrivals)
    await backend.close()
    return bare, whole


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--chunks", type=int, default=30)
    parser.add_argument("--interval-ms", type=float, default=25)
    options = parser.parse_args()
    with (
        zero_upstream(chunks=options.chunks, interval_ms=options.interval_ms, stamp=True) as upstream,
        serve_orchestra(openai_node(upstream)) as server,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        bare, whole = runner.run(run(upstream, server.chat_url, options.pairs, options.chunks))
    print(f"{'ms':<22}{'first p50':>9}{'p99':>9}{'chunk p50':>10}{'p99':>8}")
    print(bare.row("bare backend"))
    print(whole.row("whole path"))
    first = statistics.median(whole.first_ms) - statistics.median(bare.first_ms)
    chunk = statistics.median(whole.transit_ms) - statistics.median(bare.transit_ms)
    print(f"added to the first token: {first:.2f} ms; to each chunk: {chunk:.2f} ms (medians)")


if __name__ == "__main__":
    main()
