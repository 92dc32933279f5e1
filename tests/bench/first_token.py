"""How long each pattern lets its caller wait: for the first streamed token, and for the end.

`python -m tests.bench first_token` asks the same questions of each pattern with its defaults, one after
another, on SmolLM2 over two nodes in this process; each pattern's medians stand beside those of `single` in
the same run.
`python -m tests.bench.first_token maestro debate` measures these only, and `single`.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import tempfile
import time
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path

import uvloop

from actors.agents.settings import AgentsSettings
from actors.engine.onnx_backend import OnnxBackend
from actors.runtime.envelope import Envelope
from orchestration.errors import OrchestraError
from orchestration.messages import ChatMessage, Run, RunEnd, Sampling, TextDelta
from tests.actors.agents.clusters import Cluster, cluster
from tests.fixtures.models import minilm_folder, smollm2_folder
from tests.fixtures.nats import start_nats

BASE = "single"
PATTERNS = (BASE, "self-consistency", "ensemble", "debate", "maestro", "decompose", "auto")
QUESTIONS = (
    "What is the capital of France, and why is it famous?",
    "Why do leaves turn red in autumn?",
    "Which planet is the largest? A) Mercury B) Jupiter C) Mars",
)
WITHIN_S = 90.0
"""Of one run: what is not done then counts as that long."""


@dataclass(frozen=True, slots=True)
class Timed:
    """Of one run, in seconds from the question. `steps` are the calls of models."""

    first_s: float
    end_s: float
    steps: int
    tokens: int
    ended: bool = True


async def timed(running: Cluster, pattern: str, question: str, seed: int) -> Timed:
    run = Run(
        id=running.streams.new_id(),
        pattern=pattern,
        messages=(ChatMessage(role="user", content=question),),
        sampling=Sampling(seed=seed),
    )
    began, first = time.perf_counter(), 0.0
    try:
        async with aclosing(running.streams.stream(run, Envelope.within(WITHIN_S))) as events:
            async for event in events:
                now = time.perf_counter() - began
                if isinstance(event, TextDelta):
                    first = first or now
                elif isinstance(event, RunEnd):
                    steps = sum(not step.tool for step in event.steps)
                    return Timed(first or now, now, steps, event.finish.usage.completion_tokens)
    except OrchestraError as error:
        print(f"  {pattern}, question {seed}: {error.code}: {error.message}")
    return Timed(first or WITHIN_S, WITHIN_S, 0, 0, ended=False)


def median(runs: list[Timed], name: str) -> float:
    return float(statistics.median(getattr(run, name) for run in runs))


async def measure(running: Cluster, patterns: tuple[str, ...]) -> None:
    """The patterns take turns at each question, so that all see the same machine, and another one is the
    first each time, since what was read once is read faster by the next."""
    for seed in (1, 2):  # on either node
        await timed(running, BASE, "Hello", seed)
    done: dict[str, list[Timed]] = {pattern: [] for pattern in patterns}
    for seed, question in enumerate(QUESTIONS, 1):
        first = seed % len(patterns)
        for pattern in patterns[first:] + patterns[:first]:
            done[pattern].append(await timed(running, pattern, question, seed))
    base = done[BASE]
    print(f"medians of {len(QUESTIONS)} questions, on two nodes; beside them the multiple of {BASE}")
    print(f"{'pattern':18}{'first token':>18}{'end':>18}{'calls':>8}{'tokens':>8}")
    for pattern, runs in done.items():
        wait, end = median(runs, "first_s"), median(runs, "end_s")
        ratios = (wait / median(base, "first_s"), end / median(base, "end_s"))
        missing = len(runs) - sum(run.ended for run in runs)
        print(
            f"{pattern:18}{wait:9.2f} s {ratios[0]:6.1f}x{end:9.2f} s {ratios[1]:6.1f}x"
            f"{median(runs, 'steps'):8.0f}{median(runs, 'tokens'):8.0f}"
            + (f"   {missing} not ended" if missing else "")
        )


async def main(patterns: tuple[str, ...]) -> None:
    """On a server of its own."""
    nodes = [OnnxBackend([smollm2_folder()]) for _ in range(2)]
    with tempfile.TemporaryDirectory() as folder:
        nats = start_nats(Path(folder))
        try:
            settings = AgentsSettings(drain_timeout_s=5)
            async with cluster(
                nats.url, nodes[0], settings, others=nodes[1:], embedder=minilm_folder()
            ) as running:
                await measure(running, patterns)
        finally:
            nats.stop()


if __name__ == "__main__":
    asked = tuple(name for name in PATTERNS if name in sys.argv[1:] or name == BASE)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(asked if len(sys.argv) > 1 else PATTERNS))
