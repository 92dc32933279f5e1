"""CPU of the OpenAI backend for one generation, before an upstream that costs nothing.

python -m tests.bench.openai_backend [--chunks 8] [--requests 3000]
"""

from __future__ import annotations

import argparse
import asyncio
import time

import uvloop

from actors.backends.openai import OpenAIBackend, OpenAISettings
from orchestration.messages import ChatGeneration, ChatMessage, Sampling
from tests.fixtures.zero_upstream import zero_upstream

WIDTHS = (1, 32)
GENERATION = ChatGeneration(
    id="bench.1",
    model="bench",
    messages=(ChatMessage(role="user", content="hello there"),),
    sampling=Sampling(max_tokens=16),
)


async def run(upstream: str, requests: int) -> None:
    """Print a line for each width: own CPU, and the rate that it allows with the upstream beside it."""
    backend = OpenAIBackend(OpenAISettings(base_url=upstream, slots=max(WIDTHS)))
    await backend.start()

    async def ask(left: list[None]) -> None:
        while left:
            left.pop()
            async for _ in backend.generate(GENERATION):
                pass

    for at_once in WIDTHS:
        await asyncio.gather(*(ask([None] * 5) for _ in range(at_once)))
        left: list[None] = [None] * requests
        cpu, wall = time.process_time(), time.perf_counter()
        await asyncio.gather(*(ask(left) for _ in range(at_once)))
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(f"{at_once:>3} at once: {cpu / requests * 1e3:.3f} ms CPU, {requests / wall:.0f} a second")
    await backend.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chunks", type=int, default=8)
    parser.add_argument("--requests", type=int, default=3000)
    options = parser.parse_args()
    with (
        zero_upstream(chunks=options.chunks) as upstream,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        runner.run(run(upstream, options.requests))


if __name__ == "__main__":
    main()
