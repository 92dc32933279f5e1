from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors.bus.bus import Bus, BusSettings, Message
from actors.bus.declarations import Declaration, load, shipped_declaration
from actors.bus.drift import Remedy
from actors.bus.jetstream import enqueue
from actors.bus.key_value import Bucket
from actors.bus.provision import apply, apply_when_ready, ensure_consumer
from actors.bus.subjects import GenerationQueue
from orchestration.errors import DeadlineExceeded, QueueFull
from orchestration.messages import Priority
from tests.fixtures.nats import RunningNats


@pytest.fixture
async def bus(own_nats: RunningNats) -> AsyncIterator[Bus]:
    bus = await Bus.connect(BusSettings(url=own_nats.url), name="provision tests")
    yield bus
    await bus.close()


async def api(bus: Bus, verb: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
    message = await bus.request(f"$JS.API.{verb}", json.dumps(body or {}).encode(), timeout=30)
    answer: dict[str, Any] = json.loads(message.data)
    assert "error" not in answer, answer
    return answer


def changed(declaration: Declaration, **fields: object) -> Declaration:
    """With these fields of its first stream."""
    first = declaration.streams[0].model_copy(update=fields)
    return declaration.model_copy(update={"streams": (first, *declaration.streams[1:])})


async def test_applying_twice_makes_everything_once_and_then_finds_nothing_to_do(bus: Bus) -> None:
    declaration = load()
    first = await apply(bus, declaration)
    assert first
    assert all(drift.applied and drift.remedy is Remedy.CREATE for drift in first), first
    assert await apply(bus, declaration) == []
    names = set((await api(bus, "STREAM.NAMES"))["streams"])
    queues = {"RUNS", "GENERATIONS", "WEBHOOKS", "DEAD", "LOGS"}
    buckets = {"nodes", "jobs", "results", "limits", "response_cache", "leases", "forecast", "steps"}
    buckets |= {"tuning", "run_feedback", "models", "orders", "settings"}
    assert names == queues | {f"KV_{name}" for name in buckets}


async def test_a_dry_run_tells_and_changes_nothing(bus: Bus) -> None:
    found = await apply(bus, load(), dry_run=True)
    assert found
    assert not any(drift.applied for drift in found)
    assert not (await api(bus, "STREAM.NAMES"))["streams"]


async def test_processes_that_start_together_apply_it_together(bus: Bus) -> None:
    declaration = load()
    for drifts in await asyncio.gather(*(apply(bus, declaration) for _ in range(8))):
        assert all(drift.applied for drift in drifts), drifts
    assert await apply(bus, declaration) == []


async def test_drift_is_mended_where_it_can_be_and_reported_where_it_cannot(bus: Bus) -> None:
    declaration = load()
    await apply(bus, declaration)
    wanted = changed(declaration, max_messages_per_subject=7, storage="memory")
    found = {drift.field: drift for drift in await apply(bus, wanted)}
    assert found["max_msgs_per_subject"].applied
    assert found["storage"].remedy is Remedy.RECREATE
    assert not found["storage"].applied
    config = (await api(bus, "STREAM.INFO.RUNS"))["config"]
    assert (config["max_msgs_per_subject"], config["storage"]) == (7, "file")
    assert [drift.field for drift in await apply(bus, wanted)] == ["storage"]


async def test_a_change_that_the_server_refuses_is_reported_in_its_words_and_stops_nothing(bus: Bus) -> None:
    declaration = load()
    too_big = changed(declaration, max_mib=10_000_000)
    found = await apply(bus, too_big)
    refused = {drift.name for drift in found if drift.refusal}
    assert "RUNS" in refused
    assert "insufficient storage" in next(drift.refusal for drift in found if drift.name == "RUNS")
    assert all(drift.applied for drift in found if drift.stream != "RUNS")


async def test_a_changed_consumer_is_updated_in_place_templates_included(bus: Bus) -> None:
    declaration = load()
    await apply(bus, declaration)
    queue = GenerationQueue(Priority.BATCH, "org/model.v1")
    await ensure_consumer(bus, queue.STREAM, queue.consumer, queue.subject)
    await ensure_consumer(bus, queue.STREAM, queue.consumer, queue.subject)
    assert await apply(bus, declaration) == []

    info = await api(bus, f"CONSUMER.INFO.{queue.STREAM}.{queue.consumer}")
    assert info["config"]["filter_subject"] == queue.subject
    info["config"]["ack_wait"] = 30_000_000_000  # as an earlier version declared it
    body = {"stream_name": queue.STREAM, "config": info["config"]}
    await api(bus, f"CONSUMER.CREATE.{queue.STREAM}.{queue.consumer}", body)
    (drift,) = await apply(bus, declaration)
    assert (drift.name, drift.field, drift.actual, drift.applied) == (
        queue.consumer,
        "ack_wait",
        30_000_000_000,
        True,
    )
    assert await apply(bus, declaration) == []


async def test_an_undeclared_consumer_is_refused_by_name_and_stays_on_the_server(
    bus: Bus,
) -> None:
    declaration = load()
    await apply(bus, declaration)
    with pytest.raises(KeyError, match="spy"):
        await ensure_consumer(bus, "RUNS", "spy", "runs.>")
    config = {"durable_name": "spy", "name": "spy", "ack_policy": "none"}
    await api(bus, "CONSUMER.CREATE.DEAD.spy", {"stream_name": "DEAD", "config": config})
    (drift,) = await apply(bus, declaration)
    assert (drift.name, drift.remedy) == ("spy", Remedy.UNDECLARED)
    await api(bus, "CONSUMER.INFO.DEAD.spy")


async def test_a_consumer_is_not_made_for_another_subject_than_its_caller_expects(bus: Bus) -> None:
    await apply(bus, load())
    queue = GenerationQueue(Priority.BATCH, "m")
    with pytest.raises(KeyError, match="generations-batch-m"):
        await ensure_consumer(bus, queue.STREAM, queue.consumer, "generations.standard.m")


async def test_hundreds_of_models_consumers_are_compared_page_by_page(bus: Bus) -> None:
    declaration = load()
    await apply(bus, declaration)
    queues = [GenerationQueue(Priority.BATCH, f"m{number}") for number in range(300)]
    async with asyncio.TaskGroup() as group:
        for queue in queues:
            group.create_task(ensure_consumer(bus, queue.STREAM, queue.consumer, queue.subject))
    tighter = Declaration.parse(
        declaration.model_dump_json().replace('"max_ack_pending":4096', '"max_ack_pending":4000')
    )
    assert {drift.name for drift in await apply(bus, tighter, dry_run=True)} == {
        queue.consumer for queue in queues
    }


async def test_everything_is_still_there_after_the_server_was_killed(bus: Bus, own_nats: RunningNats) -> None:
    declaration = load()
    await apply(bus, declaration)
    back = asyncio.Event()
    bus.on_reconnect.append(back.set)
    own_nats.kill()
    own_nats.restart()
    await asyncio.wait_for(back.wait(), 30)
    assert await apply(bus, declaration) == []


async def test_a_full_subject_refuses_and_other_subjects_do_not_mind(bus: Bus) -> None:
    await apply(bus, changed(load(), max_messages_per_subject=2))
    for _ in range(2):
        await enqueue(bus, "runs.batch.single", b"{}", {})
    with pytest.raises(QueueFull):
        await enqueue(bus, "runs.batch.single", b"{}", {})
    await enqueue(bus, "runs.interactive.single", b"{}", {})


async def test_a_bucket_keeps_what_is_put_into_it(bus: Bus) -> None:
    await apply(bus, load())
    bucket = Bucket(bus, "limits")
    revision = await bucket.put("cluster/limit", b"5", last=0)
    entry = await bucket.get("cluster/limit")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"5", revision)


class Leaderless:
    """A bus to servers that are choosing a leader: the first `silent` requests get no answer."""

    def __init__(self, bus: Bus, silent: int) -> None:
        self.bus = bus
        self.silent = silent

    async def request(self, subject: str, data: bytes = b"", *, timeout: float | None = None) -> Message:
        if self.silent:
            self.silent -= 1
            raise DeadlineExceeded(f"no answer on {subject}")
        return await self.bus.request(subject, data, timeout=timeout)


async def test_applying_waits_for_a_cluster_to_choose_its_leader(bus: Bus) -> None:
    requester = Leaderless(bus, silent=2)
    assert await apply_when_ready(requester, shipped_declaration())
    assert requester.silent == 0
    assert await apply(bus, shipped_declaration()) == []
    with pytest.raises(DeadlineExceeded):
        await apply_when_ready(Leaderless(bus, silent=1_000), shipped_declaration(), within_s=0)
