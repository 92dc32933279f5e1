"""Runs through the queue: performed, cancelled, overdue, lost and handed on. The node echoes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import pytest

from actors.agents.process import run_agents
from actors.agents.settings import AgentsSettings
from actors.backends.base import Output
from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.bus import Message
from actors.bus.declarations import shipped_declaration
from actors.bus.jetstream import Delivery, Puller
from actors.bus.provision import apply
from actors.bus.subjects import ARRIVALS_SUBJECT, RunQueue, StreamAddress
from actors.placement.arrival_reporter import ArrivalReport
from actors.runtime.envelope import Envelope
from actors.runtime.system import ActorSystem
from actors.streams.client import StreamClient
from orchestration.errors import DeadlineExceeded, NoNode, OrchestraError, UnknownModel
from orchestration.forecast import ModelCall
from orchestration.messages import (
    ChatMessage,
    Finish,
    Generation,
    Priority,
    Progress,
    Run,
    RunEnd,
    TextDelta,
    Usage,
    encode_event,
)
from tests.actors.agents.clusters import cluster, connection, until_queued
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats
from tests.fixtures.reading import PATIENT


def echo(**settings: object) -> EchoBackend:
    return EchoBackend(EchoSettings.model_validate({"repeat": False} | settings))


def make_run(
    streams: StreamClient, pattern: str, text: str = "Why is the sky blue?", **fields: object
) -> Run:
    messages = (ChatMessage(role="user", content=text),)
    return Run.model_validate({"id": streams.new_id(), "pattern": pattern, "messages": messages} | fields)


async def perform(
    streams: StreamClient, run: Run, within_s: float = 20
) -> tuple[str, RunEnd, list[Progress]]:
    """The text, the end and the progress of a run."""
    text: list[str] = []
    progress: list[Progress] = []
    async with aclosing(streams.stream(run, Envelope.within(within_s))) as events:
        async for event in events:
            if isinstance(event, TextDelta):
                text.append(event.text)
            elif isinstance(event, Progress):
                progress.append(event)
            elif isinstance(event, RunEnd):
                return "".join(text), event, progress
    raise AssertionError("the stream ended without an end")


class Planned(EchoBackend):
    """Echo, but a plan it is asked for is the one given."""

    def __init__(self, plan: list[dict[str, object]], **settings: object) -> None:
        super().__init__(EchoSettings.model_validate({"repeat": False} | settings))
        self.plan = json.dumps({"reason": "as told", "steps": plan})

    async def generate(self, generation: Generation) -> AsyncGenerator[Output, None]:
        if generation.guide is not None and "Plan which specialists" in generation.texts[1]:
            yield TextDelta(text=self.plan)
            yield Finish(reason="stop", usage=Usage(prompt_tokens=1, completion_tokens=1))
            return
        async for output in super().generate(generation):
            yield output


async def test_a_maestro_run_streams_its_answer_and_ends_with_every_step(nats: RunningNats) -> None:
    async with cluster(nats.url, echo()) as running:
        text, ended, progress = await perform(running.streams, make_run(running.streams, "maestro"))
        assert "Why is the sky blue?" in text
        assert [step.name for step in ended.steps][:2] == ["analysis", "plan"]
        assert [step.name for step in ended.steps][-2:] == ["review", "synthesis"]
        assert ended.steps[-1].text == text
        total = Usage()
        for step in ended.steps:
            total += step.usage
            assert step.agent in running.team.services.roles
            assert step.node == running.node.id
            assert step.model == "echo"
            assert step.usage.completion_tokens > 0
            assert step.seconds > 0
        assert ended.finish.usage == total
        assert ended.finish.reason == "stop"
        assert ended.trace_id == ""  # nothing is traced here
        assert [said.step for said in progress if said.step is not None] == list(ended.steps)
        assert any(said.text.startswith("plan: ") for said in progress)
        await until_queued(running.bus, 0)
        await eventually(lambda: not running.team.run_consumer.open)  # type: ignore[union-attr]


async def test_a_run_continues_the_callers_trace(nats: RunningNats) -> None:
    async with cluster(nats.url, echo()) as running:
        trace = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
        run = make_run(running.streams, "single")
        async with aclosing(running.streams.stream(run, Envelope.within(60, trace=trace))) as events:
            said = [event async for event in events]
        assert isinstance(said[-1], RunEnd)
        assert said[-1].trace_id == "a" * 32


async def test_who_forecasts_hears_which_models_a_run_of_a_pattern_calls(nats: RunningNats) -> None:
    async with cluster(nats.url, echo()) as found:
        heard: list[ModelCall] = []

        def seen(message: Message) -> None:
            heard.extend(ArrivalReport.model_validate_json(message.data).steps)

        listening = await found.bus.subscribe(ARRIVALS_SUBJECT, seen)
        _, ended, _ = await perform(found.streams, make_run(found.streams, "single"))
        await eventually(lambda: heard)
        await listening.unsubscribe()
    assert [(step.pattern, step.model) for step in heard] == [("single", ended.finish.model)]


async def test_an_unknown_pattern_is_refused_and_the_known_ones_are_named(nats: RunningNats) -> None:
    async with cluster(nats.url, echo()) as running:
        with pytest.raises(UnknownModel, match=r"orchestra/auto, .*orchestra/maestro, .*orchestra/single"):
            await perform(running.streams, make_run(running.streams, "quartet"))
        await until_queued(running.bus, 0)


async def test_an_unknown_model_is_refused_and_the_live_ones_are_named(nats: RunningNats) -> None:
    async with cluster(nats.url, echo()) as running:
        with pytest.raises(UnknownModel, match="no model 'huge'; known models: echo"):
            await perform(running.streams, make_run(running.streams, "maestro", model="huge"))


async def test_without_a_chat_model_alive_a_run_says_so_and_waits_for_one(
    nats: RunningNats,
) -> None:
    backend = echo(models=("vectors",))
    backend._cards = {
        name: card.model_copy(update={"kind": "embedding"}) for name, card in backend._cards.items()
    }
    async with cluster(nats.url, backend) as running:
        run = make_run(running.streams, "single")
        async with aclosing(running.streams.stream(run, Envelope.within(3))) as events:
            waiting = await anext(events)
            assert isinstance(waiting, Progress)
            assert waiting.text == "waiting: no live node serves a chat model; start a node"
            with pytest.raises(NoNode, match="no live node serves a chat model"):
                _ = [event async for event in events]


async def test_a_specialist_that_fails_degrades_the_run_and_is_said(nats: RunningNats) -> None:
    plan: list[dict[str, object]] = [
        {"specialist": "research", "task": "read", "stage": 1},
        {"specialist": "code", "task": "write", "stage": 1},
    ]
    async with cluster(nats.url, Planned(plan)) as running:
        del running.team.services.roles["research"]
        _, ended, progress = await perform(running.streams, make_run(running.streams, "maestro"))
        failed = [step for step in ended.steps if step.error is not None]
        failures = [(step.agent, step.error.code) for step in failed if step.error]
        assert failures == [("research", "invalid_request")]
        assert any("goes on without 1 of 2 specialists" in said.text for said in progress)
        assert ended.finish.reason == "stop"


async def test_all_specialists_failing_fails_the_run(nats: RunningNats) -> None:
    async with cluster(
        nats.url, Planned([{"specialist": "research", "task": "read", "stage": 1}])
    ) as running:
        del running.team.services.roles["research"]
        with pytest.raises(OrchestraError, match="no agent 'research'"):
            await perform(running.streams, make_run(running.streams, "maestro"))


async def test_a_role_with_an_override_speaks_with_it(nats: RunningNats) -> None:
    settings = AgentsSettings.model_validate(
        {"drain_timeout_s": 5, "roles": {"critic": {"prompt": "x " * 3_000}}}
    )
    async with cluster(nats.url, echo(context_tokens=2048), settings) as running:
        _, ended, progress = await perform(running.streams, make_run(running.streams, "maestro"))
        review = next(step for step in ended.steps if step.name == "review")
        assert review.error is not None
        assert review.error.code == "context_length_exceeded"
        assert any("goes on without the critic" in said.text for said in progress)


async def test_leaving_in_the_middle_stops_the_generations_and_settles_the_run(nats: RunningNats) -> None:
    async with cluster(nats.url, echo(repeat=True, speed=100.0)) as running:
        run = make_run(running.streams, "single", "again " * 50, sampling={"max_tokens": 5_000})
        async with aclosing(running.streams.stream(run, Envelope.within(60))) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    break
            assert running.node.describe().running == 1
        await eventually(lambda: running.node.describe().running == 0)
        await eventually(lambda: not running.team.run_consumer.open)  # type: ignore[union-attr]
        await until_queued(running.bus, 0)


async def test_a_run_taken_back_while_it_waits_is_never_performed(nats: RunningNats) -> None:
    settings = AgentsSettings(concurrency=1, drain_timeout_s=5)
    async with cluster(nats.url, echo(first_token_s=3600.0), settings) as running:
        first = make_run(running.streams, "single")
        second = make_run(running.streams, "single")
        async with aclosing(running.streams.stream(first, Envelope.within(60))) as busy:
            reading = asyncio.ensure_future(anext(busy))
            await eventually(lambda: running.node.describe().running == 1)
            async with aclosing(running.streams.stream(second, Envelope.within(60))) as queued:
                waiting = asyncio.ensure_future(anext(queued))
                await until_queued(running.bus, 2)
                waiting.cancel()
                await asyncio.wait([waiting])
            reading.cancel()
            await asyncio.wait([reading])
        await eventually(lambda: running.node.describe().running == 0)
        await until_queued(running.bus, 0)
        assert running.node.describe().running == 0


@pytest.mark.parametrize("deleted", [True, False], ids=["by who left", "by the coordinator"])
async def test_callers_that_leave_make_room_for_the_next_run_at_once(
    nats: RunningNats, deleted: bool
) -> None:
    settings = AgentsSettings(concurrency=1, drain_timeout_s=5, keep_alive_s=3600)
    async with cluster(nats.url, echo(speed=20.0), settings) as running:
        if not deleted:
            running.streams.withdrawals.add = lambda receipt: None  # type: ignore[method-assign]
        long = make_run(running.streams, "single", "word " * 1_000)
        first = asyncio.ensure_future(perform(running.streams, long))
        await eventually(lambda: running.node.describe().running == 1)
        others = [
            asyncio.ensure_future(perform(running.streams, make_run(running.streams, "single")))
            for _ in range(100)
        ]
        await until_queued(running.bus, 101)
        for other in others:
            other.cancel()
        if deleted:
            await until_queued(running.bus, 1)
        first.cancel()
        text, _, _ = await perform(running.streams, make_run(running.streams, "single", "the next"))
        assert text == "the next"


async def test_a_run_whose_end_is_larger_than_a_message_is_performed_once(nats: RunningNats) -> None:
    words = " ".join(letter * 1_000_000 for letter in "abc")
    async with cluster(nats.url, echo(repeat=True)) as running:
        events: list[bytes] = []
        await running.bus.subscribe("events.run.*.*", lambda message: events.append(message.data))
        run = make_run(running.streams, "single", words, sampling={"max_tokens": 9})
        text, ended, _ = await perform(running.streams, run, within_s=60)
        assert text == " ".join([words] * 3)
        (step,) = ended.steps
        assert len(step.text) < 70_000
        assert "texts of steps and report are cut" in ended.finish.notes[0]
        await until_queued(running.bus, 0)
        await eventually(lambda: any(b'"type":"ended"' in event for event in events))
        assert sum(event.count(b'"type":"started"') for event in events) == 1


async def test_a_deadline_reaches_the_node_and_ends_the_run(nats: RunningNats) -> None:
    async with cluster(nats.url, echo(first_token_s=3600.0)) as running:
        with pytest.raises(DeadlineExceeded):
            await perform(running.streams, make_run(running.streams, "maestro"), within_s=0.5)
        await eventually(lambda: running.node.describe().running == 0)
        await eventually(lambda: not running.team.run_consumer.open)  # type: ignore[union-attr]


async def test_a_run_in_progress_is_finished_while_the_agents_drain(nats: RunningNats) -> None:
    async with cluster(nats.url, echo(speed=100.0)) as running:
        run = make_run(running.streams, "single", "word " * 50)
        text = ""
        draining: asyncio.Task[bool] | None = None
        async with aclosing(running.streams.stream(run, Envelope.within(60))) as events:
            async for event in events:
                if isinstance(event, TextDelta):
                    text += event.text
                    draining = draining or asyncio.ensure_future(running.team.drain())
        assert text.split() == ["word"] * 50
        assert draining is not None
        assert await draining is True


async def test_a_run_cut_off_by_a_drain_ends_with_an_error_that_may_be_asked_again(
    nats: RunningNats,
) -> None:
    settings = AgentsSettings(drain_timeout_s=0.1)
    async with cluster(nats.url, echo(first_token_s=3600.0), settings) as running:
        performing = asyncio.ensure_future(perform(running.streams, make_run(running.streams, "single")))
        await eventually(lambda: running.node.describe().running == 1)
        assert await running.team.drain() is False
        with pytest.raises(OrchestraError, match="stopped before it finished") as caught:
            await performing
        assert caught.value.retryable


@asynccontextmanager
async def once_delivered(
    url: str, priority: Priority, *said: str
) -> AsyncIterator[asyncio.Future[tuple[str, RunEnd]]]:
    """A run whose first coordinator took it, said some of the answer, and died: its message is in the queue
    again. Gives its text and its end."""
    async with connection(url, "crashed") as bus:
        await apply(bus, shipped_declaration())
        streams = StreamClient(bus, PATIENT)
        await streams.start()
        taken: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        puller = Puller(bus, RunQueue.STREAM, RunQueue.consumer(priority), taken.set_result)
        await puller.start()
        puller.request(1)
        run = make_run(streams, "single", priority=priority)
        end = asyncio.ensure_future(answer_of(streams, run))
        delivery = await taken
        for seq, text in enumerate(said):
            delta = TextDelta(text=text, tokens=len(text.split()))
            bus.post(StreamAddress(run.id).subject, encode_event(seq, delta))
        await puller.stop()
        await delivery.nak()
        try:
            yield end
        finally:
            await streams.stop()


async def answer_of(streams: StreamClient, run: Run) -> tuple[str, RunEnd]:
    return (await perform(streams, run))[:2]


@pytest.mark.parametrize("priority", Priority)
@pytest.mark.parametrize("said", [(), ("Why is", " the")], ids=["before its answer", "in its middle"])
async def test_a_run_whose_coordinator_died_goes_on_at_another(
    nats: RunningNats, priority: Priority, said: tuple[str, ...]
) -> None:
    async with once_delivered(nats.url, priority, *said) as answer:
        async with cluster(nats.url, echo(), AgentsSettings(takeover_quiet_s=0.2)) as running:
            text, ended = await answer
            assert text == "Why is the sky blue?"
            assert (ended.finish.reason, ended.finish.usage.completion_tokens) == ("stop", 5)
            assert [step.text for step in ended.steps] == [text]
            await until_queued(running.bus, 0)


async def test_a_run_delivered_twice_is_performed_once_while_its_coordinator_lives(nats: RunningNats) -> None:
    settings = AgentsSettings(keep_alive_s=60, drain_timeout_s=5)
    async with cluster(nats.url, echo(speed=2.0), settings) as running:
        answering = asyncio.ensure_future(answer_of(running.streams, make_run(running.streams, "single")))
        consumer = running.team.run_consumer
        assert consumer is not None
        await eventually(lambda: len(consumer.open) == 1)
        (sink,) = consumer.open.values()
        first = sink.delivery
        await first.nak()  # as NATS does when a keep-alive came too late
        await eventually(lambda: sink.delivery is not first)
        text, _ = await answering
        assert text == "Why is the sky blue?"
        await until_queued(running.bus, 0)
        assert not consumer.open


async def test_replicas_of_the_agents_share_runs(nats: RunningNats) -> None:
    settings = AgentsSettings(concurrency=2, drain_timeout_s=5)
    async with cluster(nats.url, echo(first_token_s=0.05), settings) as running:
        async with connection(nats.url, "second") as bus, run_agents(bus, settings, ActorSystem()) as second:
            runs = [make_run(running.streams, "maestro") for _ in range(12)]
            performing = asyncio.gather(*(perform(running.streams, run) for run in runs))
            for team in (running.team, second):
                await eventually(lambda team=team: team.services.streams.open_streams)  # type: ignore[misc]
            assert all(ended.finish.reason == "stop" for _, ended, _ in await performing)


async def test_a_run_that_cannot_be_read_is_refused_and_its_asker_told(nats: RunningNats) -> None:
    async with cluster(nats.url, echo()) as running:
        run_id = running.streams.new_id()

        async def nonsense(accepted: str) -> None:
            headers = {"Orchestra-Id": run_id}
            await running.bus.publish(
                "runs.interactive.single", b'{"id": 5}', reply=accepted, headers=headers
            )

        async with aclosing(running.streams.follow(run_id, Envelope.within(60), nonsense)) as events:
            with pytest.raises(OrchestraError) as caught:
                await anext(events)
        assert caught.value.status == 400
        await until_queued(running.bus, 0)
