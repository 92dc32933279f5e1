"""What happens in a run, as NATS tells it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise

from actors.backends.base import Output
from actors.bus.bus import Message
from actors.bus.subjects import RunAddress
from orchestration.errors import OrchestraError
from orchestration.messages import Generation
from orchestration.run_events import (
    RunEnded,
    RunEvent,
    RunStarted,
    StepEnded,
    StepStarted,
    TextDeltaEvent,
    WarningEvent,
    parse_events,
)
from tests.actors.agents.clusters import Cluster, cluster, until_queued
from tests.actors.agents.test_runs import Planned, echo, make_run, perform
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats


@asynccontextmanager
async def heard(running: Cluster, run_id: str) -> AsyncIterator[list[list[RunEvent]]]:
    """The events of that run, by the message they came in; after the block the last one has come."""
    messages: list[list[RunEvent]] = []

    def arrived(message: Message) -> None:
        messages.append(parse_events(message.data))

    listening = await running.streams.bus.subscribe(RunAddress(run_id).events, arrived)
    await running.streams.bus.flush()
    try:
        yield messages
        await eventually(lambda: messages and isinstance(messages[-1][-1], RunEnded))
    finally:
        await listening.unsubscribe()


async def test_a_maestro_run_is_told_from_its_start_to_its_end(nats: RunningNats) -> None:
    async with cluster(nats.url, echo()) as running:
        run = make_run(running.streams, "maestro", budget={"calls": 3})
        async with heard(running, run.id) as messages:
            text, ended, _ = await perform(running.streams, run)
    events = [event for message in messages for event in message]
    assert [event.seq for event in events] == list(range(len(events)))
    assert {event.run for event in events} == {run.id}
    assert all(before.at <= after.at for before, after in pairwise(events))
    first, last = events[0], events[-1]
    assert isinstance(first, RunStarted)
    assert (first.pattern, first.attempt) == ("maestro", 1)
    assert isinstance(last, RunEnded)
    assert (last.finish_reason, last.usage) == ("stop", ended.finish.usage)
    assert "".join(event.text for event in events if isinstance(event, TextDeltaEvent)) == text
    assert tuple(event.step for event in events if isinstance(event, StepEnded)) == ended.steps
    begun = {event.step: event.after for event in events if isinstance(event, StepStarted)}
    assert list(begun) == [step.name for step in ended.steps]
    assert begun[ended.steps[0].name] == ()
    assert set(begun[ended.steps[-1].name]) <= {step.name for step in ended.steps[:-1]} != set()
    assert tuple(event.text for event in events if isinstance(event, WarningEvent)) == ended.finish.notes
    assert ended.report["budget"]["calls"] == {"used": 3, "limit": 3}


async def test_a_run_that_is_over_at_once_costs_one_message(nats: RunningNats) -> None:
    async with cluster(nats.url, echo()) as running:
        await perform(running.streams, make_run(running.streams, "single"))  # the first one is slower
        run = make_run(running.streams, "single")
        async with heard(running, run.id) as messages:
            await perform(running.streams, run)
    kinds = [event.type for message in messages for event in message]
    assert kinds == ["started", "step_started", "text_delta", "step_ended", "ended"]
    assert len(messages) <= 2


async def test_a_run_that_fails_ends_with_its_error(nats: RunningNats) -> None:
    async with cluster(nats.url, echo()) as running:
        run = make_run(running.streams, "single", model="huge")
        async with heard(running, run.id) as messages:
            try:
                await perform(running.streams, run)
            except OrchestraError as error:
                told = error
    last = messages[-1][-1]
    assert isinstance(last, RunEnded)
    assert last.error is not None
    assert (last.error.code, last.error.message) == ("unknown_model", told.message)


async def test_a_caller_that_leaves_stops_every_step_at_work(nats: RunningNats) -> None:
    """Three at once, on the node."""
    plan: list[dict[str, object]] = [
        {"specialist": name, "task": "think", "stage": 1} for name in ("research", "reasoning", "code")
    ]

    class Thinks(Planned):
        """Plans at once, and works for ever."""

        async def generate(self, generation: Generation) -> AsyncGenerator[Output, None]:
            async for output in super().generate(generation):
                yield output
                if generation.guide is None:
                    await asyncio.Event().wait()

    async with cluster(nats.url, Thinks(plan)) as running:
        run = make_run(running.streams, "maestro")
        async with heard(running, run.id) as messages:
            performing = asyncio.ensure_future(perform(running.streams, run))
            await eventually(lambda: running.node.describe().running == 3)
            performing.cancel()
            await asyncio.wait([performing])
            await eventually(lambda: running.node.describe().running == 0)
        last = messages[-1][-1]
        assert isinstance(last, RunEnded)
        assert last.finish_reason == "cancelled"
        assert not running.team.services.streams.open_streams
        await until_queued(running.bus, 0)


async def test_an_answer_that_the_budgets_seconds_end_is_given_with_a_note(nats: RunningNats) -> None:
    async with cluster(nats.url, echo(speed=20.0, repeat=True)) as running:
        run = make_run(
            running.streams, "single", budget={"seconds": 0.5}, sampling={"max_tokens": 1_000, "stop": ()}
        )
        text, ended, _ = await perform(running.streams, run)
        assert text.startswith("Why is the")
        assert ended.finish.reason == "length"
        assert ended.steps[0].text == text
        assert ended.finish.notes == ("to stay within 0.5 seconds: answer kept short",)
        await eventually(lambda: running.node.describe().running == 0)
