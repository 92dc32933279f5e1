"""The finished steps of runs, recorded in NATS and read by whoever takes a run up. The node echoes."""

from __future__ import annotations

import asyncio
import logging

import pytest
from prometheus_client import REGISTRY

from actors.agents.step_records import BUCKET, StepRecords
from actors.bus.bus import Message
from actors.bus.declarations import shipped_declaration
from actors.bus.jetstream import Delivery, Puller, enqueue
from actors.bus.provision import apply
from actors.bus.subjects import RunQueue, StreamAddress
from actors.runtime.envelope import Envelope
from actors.streams.client import ID_HEADER, StreamClient
from orchestration.errors import OrchestraError
from orchestration.messages import Run, RunEnd, Step, Usage, Work, decode_events
from orchestration.patterns import StepRecord
from tests.actors.agents.clusters import cluster, connection, until_queued
from tests.actors.agents.test_runs import Planned, echo, make_run, perform
from tests.fixtures.eventually import eventually
from tests.fixtures.jetstream import api, stored_in
from tests.fixtures.nats import RunningNats

PLAN: list[dict[str, object]] = [
    {"specialist": "research", "task": "read", "stage": 1},
    {"specialist": "code", "task": "write", "stage": 2},
]


async def test_steps_are_recorded_during_a_run_and_removed_at_its_end(nats: RunningNats) -> None:
    async with cluster(nats.url, Planned(PLAN)) as running:
        heard: list[Message] = []
        listening = await running.streams.bus.subscribe(f"$KV.{BUCKET}.>", heard.append)
        await running.streams.bus.flush()
        run = make_run(running.streams, "maestro")
        _, ended, _ = await perform(running.streams, run)
        await eventually(lambda: not running.team.run_consumer.open)  # type: ignore[union-attr]
        await listening.unsubscribe()
        recorded = [StepRecord.model_validate_json(message.data).step for message in heard]
        assert recorded == list(ended.steps[:-1])
        assert await stored_in(running.bus, f"KV_{BUCKET}") == 0


async def test_a_run_of_one_step_records_nothing(nats: RunningNats) -> None:
    async with cluster(nats.url, echo()) as running:
        before = (await api(running.bus, f"STREAM.INFO.KV_{BUCKET}"))["state"]["last_seq"]
        await perform(running.streams, make_run(running.streams, "single"))
        after = (await api(running.bus, f"STREAM.INFO.KV_{BUCKET}"))["state"]["last_seq"]
    assert before == after


def kept(text: str, *, fingerprint: str = "what") -> StepRecord:
    step = Step(name="a step", agent="research", text=text, usage=Usage(prompt_tokens=3, completion_tokens=2))
    return StepRecord(fingerprint=fingerprint, step=step, run_s=1.5)


async def test_when_two_coordinators_record_a_step_the_first_counts(
    nats: RunningNats,
) -> None:
    async with cluster(nats.url, echo()) as running:
        one, two, other = (StepRecords(running.bus, run_id) for run_id in ("a.1", "a.1", "a.11"))
        assert await one.known() == {}
        assert await one.keep(kept("first")) == kept("first")
        assert await two.keep(kept("second")) == kept("first")
        assert await one.known() == await two.known() == {"a step": kept("first")}
        asked_anew = kept("third", fingerprint="something else")
        assert await two.keep(asked_anew) == asked_anew
        assert await one.known() == {"a step": asked_anew}
        assert await other.keep(kept("theirs")) == kept("theirs")
        await one.remove()
        assert await two.known() == {}
        assert await other.known() == {"a step": kept("theirs")}
        await other.remove()


def failed() -> float:
    """Steps that could not be recorded, or read, in this process."""
    return REGISTRY.get_sample_value("orchestra_steps_recorded_total", {"outcome": "failed"}) or 0.0


@pytest.mark.parametrize("trouble", ["full", "gone"])
async def test_a_step_that_cannot_be_recorded_is_logged_and_counted_and_the_run_goes_on(
    nats: RunningNats, caplog: pytest.LogCaptureFixture, trouble: str
) -> None:
    async with cluster(nats.url, Planned(PLAN)) as running:
        if trouble == "full":
            config = (await api(running.bus, f"STREAM.INFO.KV_{BUCKET}"))["config"]
            await api(running.bus, f"STREAM.UPDATE.KV_{BUCKET}", config | {"discard": "new", "max_bytes": 64})
        else:
            await api(running.bus, f"STREAM.DELETE.KV_{BUCKET}")
        before = failed()
        with caplog.at_level(logging.WARNING, "actors.agents.step_records"):
            _, ended, _ = await perform(running.streams, make_run(running.streams, "maestro"))
        assert ended.finish.reason == "stop"
        unrecorded = len(ended.steps) - 1
        assert failed() == before + unrecorded
        assert len(caplog.records) == unrecorded
        assert "is not recorded" in caplog.records[0].message
        await eventually(lambda: not running.team.run_consumer.open)  # type: ignore[union-attr]
        if trouble == "full":
            await api(running.bus, f"STREAM.DELETE.KV_{BUCKET}")


async def test_a_coordinator_that_recovers_a_cancelled_run_removes_its_steps(
    nats: RunningNats,
) -> None:
    async with connection(nats.url, "dead") as bus:
        await apply(bus, shipped_declaration())
        run = Run(id="gone.1", pattern="single", messages=())
        records = StepRecords(bus, run.id)
        await records.keep(kept("for nobody"))
        taken: asyncio.Future[Delivery] = asyncio.get_running_loop().create_future()
        puller = Puller(bus, RunQueue.STREAM, RunQueue.consumer(run.priority), taken.set_result)
        await puller.start()
        puller.request(1)
        body = run.model_dump_json(exclude_defaults=True).encode()
        await enqueue(bus, RunQueue(run.priority, run.pattern).subject, body, {ID_HEADER: run.id})
        delivery = await taken
        await puller.stop()
        await delivery.nak()
        async with cluster(nats.url, echo()) as running:
            await until_queued(running.bus, 0)
            await eventually(lambda: not_recorded(records))


async def not_recorded(records: StepRecords) -> bool:
    return await records.known() == {}


async def test_a_run_that_fails_half_way_ends_with_its_finished_steps(nats: RunningNats) -> None:
    async with cluster(nats.url, Planned(PLAN[:1])) as running:
        del running.team.services.roles["research"]
        run = make_run(running.streams, "maestro")
        heard: list[bytes] = []
        listening = await running.streams.bus.subscribe(
            StreamAddress(run.id).subject, lambda message: heard.append(message.data)
        )
        with pytest.raises(OrchestraError, match="no agent 'research'"):
            await perform(running.streams, run)
        await listening.unsubscribe()
        ended = decode_events(heard[-1])[-1].event
        assert isinstance(ended, RunEnd)
        assert ended.error is not None
        *done, last = ended.steps
        assert last.agent == "research"
        assert last.error is not None
        assert done
        assert not any(step.error for step in done)
        await eventually(lambda: not running.team.run_consumer.open)  # type: ignore[union-attr]
        assert await stored_in(running.bus, f"KV_{BUCKET}") == 0


@pytest.mark.parametrize("pattern", ["single", "ensemble"])
async def test_model_calls_that_nats_loses_before_their_queue_has_them_are_made_again(
    own_nats: RunningNats, monkeypatch: pytest.MonkeyPatch, pattern: str
) -> None:
    async with cluster(own_nats.url, echo()) as running:
        publish = StreamClient._publish
        outages = iter([True])

        async def without_nats(self: StreamClient, work: Work, envelope: Envelope, accepted: str) -> None:
            if not isinstance(work, Run) and next(outages, False):
                own_nats.kill()
                await eventually(lambda: not running.bus.connected)
                await asyncio.to_thread(own_nats.restart)
                await eventually(lambda: running.bus.connected and running.streams.bus.connected)
            await publish(self, work, envelope, accepted)

        monkeypatch.setattr(StreamClient, "_publish", without_nats)
        text, ended, _ = await perform(running.streams, make_run(running.streams, pattern))
        assert (ended.finish.reason, bool(text)) == ("stop", True)
