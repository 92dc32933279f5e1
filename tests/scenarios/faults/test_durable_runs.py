"""Runs of several steps whose coordinator is killed between any two of them: nothing is paid for twice."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

import aiohttp

from actors.backends.base import Output
from actors.dispatcher.process import run_dispatcher
from actors.dispatcher.settings import DispatcherSettings
from actors.node.process import run_node
from actors.node.settings import NodeSettings
from actors.runtime.system import ActorSystem
from actors.streams.client import StreamClient
from orchestration.messages import Finish, Generation, RunEnd, TextDelta
from tests.actors.agents.test_runs import Planned, make_run, perform
from tests.fixtures.eventually import eventually
from tests.fixtures.jetstream import stored_in
from tests.fixtures.reading import PATIENT
from tests.scenarios.faults.process_cluster import ProcessCluster

PLAN: list[dict[str, object]] = [
    {"specialist": "research", "task": "read", "stage": 1},
    {"specialist": "code", "task": "write", "stage": 2},
]
KINDS = ("run", "job")
MAX_STEPS = 16
"""Maximum steps of a run in this test."""


def question(kind: str, number: int) -> str:
    return f"{kind} number-{number}: why is the sky blue?"


@dataclass
class StepCounts:
    """The prompts of a node's generations, begun and ended, by the question of their run."""

    begun: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    ended: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    held: Counter[str] = field(default_factory=Counter)


class Gated(Planned):
    """Holds the generations of question number n until `go`, once n of them have ended. The last of all
    `steps` is held after its first word."""

    def __init__(self) -> None:
        super().__init__(PLAN)
        self.steps = MAX_STEPS
        self.counts = StepCounts()
        self.go = asyncio.Event()

    async def generate(self, generation: Generation) -> AsyncGenerator[Output, None]:
        text = " ".join(generation.texts)
        asked = next(
            question(kind, number)
            for kind in KINDS
            for number in range(MAX_STEPS + 1)
            if question(kind, number) in text
        )
        number = int(asked.partition("number-")[2].partition(":")[0])
        prompt = hashlib.sha256(text.encode()).hexdigest()
        counts = self.counts
        counts.begun[asked][prompt] += 1
        if len(counts.ended[asked]) == number < self.steps:
            counts.held[asked] += 1
            await self.go.wait()
        async for output in super().generate(generation):
            if isinstance(output, Finish):
                counts.ended[asked].append(prompt)
            yield output
            if isinstance(output, TextDelta) and number == self.steps == len(counts.ended[asked]) + 1:
                counts.held[asked] += 1
                await self.go.wait()


async def submitted(url: str, number: int) -> str:
    """Submit a job of the pattern maestro, and return its id."""
    said = [{"role": "user", "content": question("job", number)}]
    body = {"model": "orchestra/maestro", "messages": said}
    async with aiohttp.ClientSession() as session, session.post(f"{url}/v1/jobs", json=body) as reply:
        assert reply.status == 202, await reply.text()
        return str((await reply.json())["id"])


async def fetched(url: str, job_id: str) -> dict[str, object]:
    """The job when it has ended."""
    found: dict[str, object] = {}

    async def over() -> bool:
        async with aiohttp.ClientSession() as session, session.get(f"{url}/v1/jobs/{job_id}") as reply:
            found.update(await reply.json())
        return found["status"] not in ("queued", "running")

    await eventually(over, within_s=60)
    return found


async def test_no_finished_step_is_repeated_wherever_a_coordinator_is_killed(
    processes: ProcessCluster,
) -> None:
    """The coordinator is killed while each run and job is at another step, or in the middle of its answer."""
    backend = Gated()
    async with AsyncExitStack() as stack:
        system = ActorSystem()
        node = await stack.enter_async_context(run_node(processes.bus, backend, NodeSettings(), system))
        await stack.enter_async_context(run_dispatcher(processes.bus, DispatcherSettings(), system))
        streams = StreamClient(processes.bus, PATIENT)
        await streams.start()
        stack.push_async_callback(streams.stop)
        url, _ = await asyncio.gather(processes.gateway("gateway"), processes.start("victim", "agents"))
        await processes.ready()

        async def end(number: int) -> tuple[str, RunEnd]:
            text, ended, _ = await perform(
                streams, make_run(streams, "maestro", question("run", number)), within_s=60
            )
            return text, ended

        steps = backend.steps = len((await end(MAX_STEPS))[1].steps)  # which nobody stops
        numbers = range(steps + 1)
        backend.counts = StepCounts()
        runs = [asyncio.ensure_future(end(number)) for number in numbers]
        jobs = [await submitted(url, number) for number in numbers]
        await eventually(lambda: len(backend.counts.held) == 2 * len(numbers))
        recorded = sum(min(number, steps - 1) for number in numbers)
        await eventually(lambda: stored_is(processes, 2 * recorded))
        before = {asked: list(ended) for asked, ended in backend.counts.ended.items()}
        await processes.start("heir", "agents")
        processes.kill("victim")
        backend.go.set()
        answers = await asyncio.gather(*runs)
        for number, (text, ended) in zip(numbers, answers, strict=True):
            assert ended.finish.reason == "stop"
            assert len(ended.steps) == steps
            assert ended.steps[-1].text == text
            assert question("run", number) in text
        for job_id in jobs:
            job = await fetched(url, job_id)
            assert job["status"] == "succeeded", job
        for number in numbers:
            for kind in KINDS:
                asked = question(kind, number)
                begun, ended_before = backend.counts.begun[asked], before.get(asked, [])
                assert len(ended_before) == min(number, steps - 1)
                assert [begun[prompt] for prompt in ended_before] == [1] * len(ended_before)
                assert sum(begun.values()) == steps + 1  # the one in flight, twice
        await eventually(lambda: stored_is(processes, 0))
        await eventually(lambda: node.describe().running == 0)  # what nobody waits for stops by itself


async def stored_is(processes: ProcessCluster, count: int) -> bool:
    """Whether so many steps are recorded now."""
    return await stored_in(processes.bus, "KV_steps") == count
