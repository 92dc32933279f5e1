"""A mixed load on the ONNX node, with steps that move with it and with steps as they are set.

`python -m tests.bench.adaptive_batching [--seconds 20]`: four callers have short prompts answered one after
another; every four seconds four long prompts come at once, of about 300 tokens each and nothing in common.
Told are the wait between two tokens of the short ones, the time to the first token of either, and tokens per
second, first with one caller alone.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import time
from contextlib import aclosing
from dataclasses import dataclass, field
from itertools import count
from random import Random
from typing import cast

import uvloop

from actors.engine.onnx_backend import OnnxBackend
from actors.engine.settings import OnnxSettings
from orchestration.messages import ChatMessage, Generation, Sampling, TextDelta
from tests.fixtures.models import smollm2_folder

SHORT, LONG = 4, 4
EVERY_S = 4.0
WORDS = ("river", "stone", "market", "winter", "engine", "garden", "letter", "bridge", "island", "copper")

_numbers = count()


@dataclass(slots=True)
class Figures:
    gaps: list[float] = field(default_factory=list)
    first_short: list[float] = field(default_factory=list)
    first_long: list[float] = field(default_factory=list)
    tokens: int = 0

    def line(self, seconds: float) -> str:
        parts = [f"{self.tokens / seconds:5.0f} tokens/s", f"gap p50 {_cut(self.gaps, 50)}"]
        parts += [f"p99 {_cut(self.gaps, 99)}", f"first token: short p50 {_cut(self.first_short, 50)}"]
        parts += [f"p95 {_cut(self.first_short, 95)}"]
        if self.first_long:
            parts += [f"long p50 {_cut(self.first_long, 50)}", f"p95 {_cut(self.first_long, 95)}"]
        return "  ".join(parts)


def _cut(values: list[float], percent: int) -> str:
    return f"{1000 * statistics.quantiles(values, n=100, method='inclusive')[percent - 1]:5.0f} ms"


async def ask(backend: OnnxBackend, words: int, tokens: int, seed: int, figures: Figures) -> None:
    text = " ".join(Random(seed).choices(WORDS, k=words))
    generation = Generation(
        id=f"bench.{next(_numbers)}",
        model="smollm2-135m",
        messages=(ChatMessage(role="user", content=text),),
        sampling=Sampling(temperature=0, max_tokens=tokens),
    )
    began = last = time.perf_counter()
    first = True
    outputs = backend.generate(generation)
    async with aclosing(outputs):  # type: ignore[type-var]
        async for output in outputs:
            if isinstance(output, TextDelta):
                now = time.perf_counter()
                if first:
                    (figures.first_long if words > 100 else figures.first_short).append(now - began)
                elif words <= 100:
                    figures.gaps.append(now - last)
                figures.tokens += output.tokens
                first, last = False, now


async def measure(target_s: float, seconds: float, callers: int, long: int) -> str:
    """One load under one setting."""
    backend = OnnxBackend([smollm2_folder()], OnnxSettings(step_target_s=target_s, prefix_cache_bytes=0))
    await backend.start()
    figures = Figures()
    began = time.perf_counter()

    async def one_after_another(seed: int) -> None:
        while time.perf_counter() < began + seconds:
            seed += 1000
            await ask(backend, 12, 40, seed, figures)

    async def at_times() -> None:
        async with asyncio.TaskGroup() as bursts:
            for burst in range(int(seconds / EVERY_S)):
                await asyncio.sleep(max(0.0, began + burst * EVERY_S + 1 - time.perf_counter()))
                for at in range(long):
                    bursts.create_task(ask(backend, 250, 16, burst * 100 + at, figures))

    try:
        async with asyncio.TaskGroup() as group:
            for caller in range(callers):
                group.create_task(one_after_another(caller))
            group.create_task(at_times())
        return figures.line(time.perf_counter() - began)
    finally:
        await backend.close()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20)
    seconds = cast(float, parser.parse_args().seconds)
    for name, callers, long in (("one alone", 1, 0), ("mixed", SHORT, LONG)):
        for how, target_s in (("as set", 0.0), ("0.25 s", 0.25), ("0.5 s", 0.5)):
            if callers > 1 or target_s in (0.0, 0.25):
                line = await measure(target_s, seconds, callers, long)
                print(f"{name:10}{how:8}{line}", flush=True)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
