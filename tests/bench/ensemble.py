"""What an ensemble costs in time against its slowest member, and what the quorum saves.

`python -m tests.bench ensemble` first asks three equal echo nodes, whose voices take a second each, and holds
the wall time of a run against its slowest voice; then SmolLM2 on one node, twenty questions of multiple
choice and small sums, with all voices heard and ended by the quorum, with the same seeds.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from actors.agents.settings import AgentsSettings
from actors.backends.echo import EchoBackend, EchoSettings
from actors.engine.onnx_backend import OnnxBackend
from actors.runtime.envelope import Envelope
from orchestration.messages import ChatMessage, Run, RunEnd, Sampling, TextDelta
from orchestration.patterns import StepLimits
from orchestration.patterns.consensus import asked_kind, key_of
from tests.actors.agents.clusters import Cluster, cluster
from tests.fixtures.models import smollm2_folder
from tests.fixtures.nats import start_nats

RUNS = 15
VOICE = EchoSettings(slots=1, first_token_s=0.1, speed=50, repeat=False)
WORDS = " ".join(f"word{number}" for number in range(45))
SAMPLES = 5
SUMS = {
    "What is 2 + 3?": "5",
    "What is 7 + 5?": "12",
    "What is 10 - 4?": "6",
    "What is 6 * 7?": "42",
    "What is 9 + 8?": "17",
    "What is 20 / 4?": "5",
    "What is 15 - 9?": "6",
    "What is 3 * 4?": "12",
    "How many legs has a spider?": "8",
    "How many days has a week?": "7",
}
CHOICES = {
    "Which planet is the largest? A) Mercury B) Jupiter C) Mars": "B",
    "What is the capital of France? A) Paris B) Rome C) Berlin": "A",
    "What do bees make? A) milk B) paper C) honey": "C",
    "Which animal barks? A) cat B) dog C) fish": "B",
    "What colour is grass? A) green B) blue C) red": "A",
    "Which is a fruit? A) carrot B) potato C) apple": "C",
    "What freezes to ice? A) water B) sand C) iron": "A",
    "Where do fish live? A) in trees B) in water C) in the air": "B",
    "Which season is the coldest? A) summer B) spring C) winter": "C",
    "What do we breathe? A) air B) stone C) water": "A",
}
QUESTIONS = SUMS | CHOICES


@dataclass(frozen=True, slots=True)
class Outcome:
    """Of one run. `written` are the tokens of all voices, those that were stopped as well."""

    report: dict[str, Any]
    seconds: float
    first_s: float
    slowest_s: float
    written: int
    nodes: int


async def perform(running: Cluster, pattern: str, question: str, seed: int, **settings: Any) -> Outcome:
    """One run from the question to its end."""
    run = Run(
        id=running.streams.new_id(),
        pattern=pattern,
        messages=(ChatMessage(role="user", content=question),),
        sampling=Sampling(seed=seed),
        settings=settings,
    )
    began, first = time.perf_counter(), 0.0
    async with aclosing(running.streams.stream(run, Envelope.within(120))) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                first = first or time.perf_counter() - began
            elif isinstance(event, RunEnd):
                report = event.report.get(pattern, {})
                return Outcome(
                    report=report,
                    seconds=time.perf_counter() - began,
                    first_s=first,
                    slowest_s=max(step.seconds for step in event.steps),
                    written=sum(voice.get("tokens", 0) for voice in report.get("voices", ())),
                    nodes=len({step.node for step in event.steps}),
                )
    raise AssertionError("the stream ended without an end")


async def against_slowest(url: str) -> None:
    """Three voices on three equal nodes, each with room for one."""
    nodes = [EchoBackend(VOICE) for _ in range(3)]
    async with cluster(url, nodes[0], others=nodes[1:]) as running:
        done = [
            await perform(running, "ensemble", WORDS, seed, early=False, stream_at=1, kind="exact")
            for seed in range(RUNS)
        ]
        alone = [await perform(running, "single", WORDS, seed) for seed in range(5)]
    ratios = [run.seconds / run.slowest_s for run in done]
    wall = statistics.median(run.seconds for run in done)
    single = statistics.median(run.seconds for run in alone)
    print(
        f"ensemble of 3 on {min(run.nodes for run in done)} nodes, {RUNS} runs: wall time / slowest voice "
        f"p50 {statistics.median(ratios):.3f}, worst {max(ratios):.3f};\n"
        f"{wall:.2f} s against {single:.2f} s of one voice alone: {wall / single:.3f}",
        flush=True,
    )


def key(question: str, run: Outcome) -> str | None:
    """The number or letter that a run came to."""
    return key_of(asked_kind(question), run.report["answer"], question)


async def play(running: Cluster, title: str, pattern: str, **settings: Any) -> list[Outcome]:
    """All questions, one after another."""
    done = [
        await perform(running, pattern, question, seed, samples=SAMPLES, **settings)
        for seed, question in enumerate(QUESTIONS, 1)
    ]
    hits = sum(
        key(question, run) == QUESTIONS[question] for question, run in zip(QUESTIONS, done, strict=True)
    )
    print(
        f"{title:30}{sum(run.written for run in done):6} tokens"
        f"{sum(run.report['calls_cut'] for run in done):4} of {SAMPLES * len(done)} calls cut"
        f"{hits:4} of {len(done)} right"
        f"  p50 {statistics.median(run.seconds for run in done):.2f} s,"
        f" first token {statistics.median(run.first_s for run in done):.2f} s",
        flush=True,
    )
    return done


def saved(title: str, full: list[Outcome], runs: list[Outcome]) -> None:
    """What `runs` wrote less than `full`, by whether all voices agree when all are heard."""
    print(f"{title}:")
    for name, unanimous in (("all voices agree", True), ("some dissent", False)):
        pairs = [
            (one.written, other.written)
            for one, other in zip(full, runs, strict=True)
            if (one.report["agreement"] == 1) is unanimous
        ]
        if pairs:
            whole, used = map(sum, zip(*pairs, strict=True))
            print(f"  {name:18}{len(pairs):3} questions: {100 * (1 - used / whole):5.1f} % of tokens saved")
    same = sum(
        key(question, one) == key(question, other)
        for question, one, other in zip(QUESTIONS, full, runs, strict=True)
    )
    estimate = sum(run.report["tokens_saved"] for run in runs)
    print(
        f"  the answer of all voices in {same} of {len(runs)}; the reports estimate {estimate} tokens saved"
    )


async def quorum(url: str) -> None:
    """The same questions and seeds with all voices heard, and ended early."""
    settings = AgentsSettings(limits=StepLimits(final_tokens=64), drain_timeout_s=5)
    async with cluster(url, OnnxBackend([smollm2_folder()]), settings) as running:
        await perform(running, "single", "hello", 0)
        full = await play(running, "all voices", "ensemble", early=False)
        ended = {
            "quorum at 0.95": await play(running, "quorum at 0.95", "ensemble"),
            "quorum at 1 (certain)": await play(running, "quorum at 1 (certain)", "ensemble", confidence=1.0),
            "0.95, two at once": await play(
                running, "0.95, two at once", "self-consistency", at_once=2, think=False
            ),
        }
    for title, runs in ended.items():
        saved(title, full, runs)


async def main() -> None:
    """Both, on a server of its own."""
    with tempfile.TemporaryDirectory() as folder:
        nats = start_nats(Path(folder))
        try:
            await against_slowest(nats.url)
            await quorum(nats.url)
        finally:
            nats.stop()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
