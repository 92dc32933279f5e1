"""What it costs that runs are told of and that their steps are recorded: with and without, turn by turn.

`python -m tests.bench.durable_runs` prints CPU, p50 and messages to NATS of a run, one after another, all
roles in one process beside a real nats-server; the node echoes, so a run costs as little as it can.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest.mock import patch

import uvloop

from actors.agents.run_event_publisher import RunEventPublisher
from actors.agents.step_records import StepRecords
from actors.bus.nats_client import NatsConnection
from actors.launch.process import freeze_garbage_collector
from actors.runtime.envelope import Envelope
from orchestration.messages import RunEnd, Step
from orchestration.patterns import StepRecord
from tests.actors.agents.clusters import Cluster, cluster
from tests.actors.agents.test_runs import Planned, make_run
from tests.fixtures.nats import start_nats

ROUNDS, RUNS, STEPS = 9, 40, 500
PLAN: list[dict[str, object]] = [
    {"specialist": "research", "task": "read", "stage": 1},
    {"specialist": "code", "task": "write", "stage": 2},
]


@contextmanager
def without_events() -> Iterator[None]:
    """Nothing is told."""
    with patch.multiple(RunEventPublisher, add=lambda *_: None, said=lambda *_: None, flush=lambda *_: None):
        yield


@contextmanager
def without_records() -> Iterator[None]:
    """No step is recorded."""

    async def keep(self: StepRecords, kept: StepRecord) -> StepRecord:
        return kept

    with patch.object(StepRecords, "keep", keep):
        yield


@contextmanager
def as_it_is() -> Iterator[None]:
    yield


@dataclass(slots=True)
class Figures:
    """By round, of one run: seconds of CPU, seconds until its end, messages sent; and its steps."""

    cpu: list[float] = field(default_factory=list)
    took: list[float] = field(default_factory=list)
    sent: list[float] = field(default_factory=list)
    steps: int = 0

    def row(self, name: str) -> str:
        cpu, took, sent = (statistics.median(each) for each in (self.cpu, self.took, self.sent))
        return f"{name:<32} {self.steps:>5} {cpu * 1e3:>8.3f} {took * 1e3:>8.3f} {sent:>9.1f}"


async def one(running: Cluster, pattern: str) -> tuple[float, int]:
    """Seconds until its end, and its steps."""
    began, steps = time.perf_counter(), 0
    run = make_run(running.streams, pattern)
    async with aclosing(running.streams.stream(run, Envelope.within(30))) as events:
        async for event in events:
            if isinstance(event, RunEnd):
                steps = len(event.steps)
    return time.perf_counter() - began, steps


async def a_round(running: Cluster, pattern: str, figures: Figures) -> None:
    sent, send = 0, NatsConnection.send

    def counted(*message: Any) -> None:
        nonlocal sent
        sent += 1
        send(*message)

    cpu = time.process_time()
    with patch.object(NatsConnection, "send", counted):
        done = [await one(running, pattern) for _ in range(RUNS)]
    figures.cpu.append((time.process_time() - cpu) / RUNS)
    figures.sent.append(sent / RUNS)
    figures.took.append(statistics.median(took for took, _ in done))
    figures.steps = done[-1][1]


async def recording(running: Cluster) -> tuple[float, float]:
    """Seconds to record a step of 2 KB, and of a round trip to the server."""
    records = StepRecords(running.bus, "bench.1")
    kept, trips = [], []
    for number in range(STEPS):
        step = Step(name=f"step {number}", agent="research", text="x" * 2_000)
        began = time.perf_counter()
        await records.keep(StepRecord(asked="a", step=step, run_s=1.0))
        recorded = time.perf_counter()
        await running.bus.flush()
        kept.append(recorded - began)
        trips.append(time.perf_counter() - recorded)
    await records.remove()
    return statistics.median(kept), statistics.median(trips)


async def measure(url: str) -> tuple[dict[str, Figures], float, float]:
    ways = {
        "single": ("single", as_it_is),
        "single, nothing told": ("single", without_events),
        "maestro": ("maestro", as_it_is),
        "maestro, nothing told": ("maestro", without_events),
        "maestro, no step recorded": ("maestro", without_records),
    }
    found = {name: Figures() for name in ways}
    async with cluster(url, Planned(PLAN)) as running:
        freeze_garbage_collector()
        for pattern in ("single", "maestro"):
            await a_round(running, pattern, Figures())
        for _ in range(ROUNDS):
            for name, (pattern, way) in ways.items():
                with way():
                    await a_round(running, pattern, found[name])
        return found, *await recording(running)


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory(prefix="orchestra-bench-") as folder:
        server = start_nats(Path(folder))
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                found, keeping, trip = runner.run(measure(server.url))
        finally:
            server.stop()
    print(f"{'run':<32} {'steps':>5} {'CPU ms':>8} {'p50 ms':>8} {'messages':>9}")
    for name, figures in found.items():
        print(figures.row(name))
    print(f"recording a step: p50 {keeping * 1e3:.3f} ms; a round trip to the server: {trip * 1e3:.3f} ms")


if __name__ == "__main__":
    main()
