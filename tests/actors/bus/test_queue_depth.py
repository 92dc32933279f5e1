"""The numbers that `read_depth` gives agree with what was put into the queues."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from actors.bus.bus import Bus, BusSettings
from actors.bus.declarations import shipped_declaration
from actors.bus.depth_reader import MAX_AGES, read_depth
from actors.bus.held_generations import HeldResponder, held_generations
from actors.bus.jetstream import Delivery, Puller, enqueue
from actors.bus.provision import apply, ensure_consumer
from actors.bus.queue_age import TOGETHER
from actors.bus.queue_depth import ClusterDepth, QueueDepth
from actors.bus.subjects import HELD_SUBJECT, GenerationQueue, RunQueue
from orchestration.priority import Priority
from tests.fixtures.eventually import eventually
from tests.fixtures.jetstream import api
from tests.fixtures.nats import RunningNats, module_nats

__all__ = ["module_nats"]

INTERACTIVE, BATCH = Priority.INTERACTIVE, Priority.BATCH


@dataclass(slots=True)
class Queues:
    """Puts messages into queues and pulls them."""

    bus: Bus
    deliveries: list[Delivery] = field(default_factory=list)
    pullers: list[Puller] = field(default_factory=list)

    async def put(self, subject: str, count: int = 1, body: bytes = b"{}") -> None:
        for _ in range(count):
            await enqueue(self.bus, subject, body, {})

    async def pull(self, stream: str, consumer: str, count: int) -> None:
        puller = Puller(self.bus, stream, consumer, self.deliveries.append)
        self.pullers.append(puller)
        await puller.start()
        wanted = len(self.deliveries) + count
        puller.request(count)
        await eventually(lambda: len(self.deliveries) == wanted)

    async def generations(self, model: str, priority: Priority, stored: int, pulled: int) -> GenerationQueue:
        queue = GenerationQueue(priority, model)
        await ensure_consumer(self.bus, queue.STREAM, queue.consumer, queue.subject)
        await self.put(queue.subject, stored)
        if pulled:
            await self.pull(queue.STREAM, queue.consumer, pulled)
        return queue


@pytest.fixture
async def queues(nats: RunningNats) -> AsyncIterator[Queues]:
    """All streams, empty."""
    bus = await Bus.connect(BusSettings(url=nats.url), name="test")
    await apply(bus, shipped_declaration())
    queues = Queues(bus)
    yield queues
    for puller in queues.pullers:
        await puller.stop()
    for stream in shipped_declaration().streams:
        await api(bus, f"STREAM.PURGE.{stream.name}")
    await bus.close()


def part(depth: ClusterDepth, queue: str, priority: str = "", model: str = "") -> QueueDepth:
    (found,) = [
        each for each in depth.parts if (each.queue, each.priority, each.model) == (queue, priority, model)
    ]
    return found


async def stored_at(bus: Bus, stream: str, sequence: int) -> float:
    """When the server stored a message, by its own word."""
    reply = await bus.request(f"$JS.API.DIRECT.GET.{stream}", json.dumps({"seq": sequence}).encode())
    whole, fraction = reply.header("Nats-Time-Stamp").rstrip("Z").split(".")
    seconds = time.mktime(time.strptime(whole, "%Y-%m-%dT%H:%M:%S")) - time.timezone
    return seconds + float(f"0.{fraction}")


async def test_empty_queues_have_zeros_for_every_priority(queues: Queues) -> None:
    depth = await read_depth(queues.bus)
    assert depth.parts == ()
    names = [(each.queue, each.priority) for each in depth.by_priority()]
    assert names == [
        *(("RUNS", priority.value) for priority in Priority),
        *(("GENERATIONS", priority.value) for priority in Priority),
        *(("WEBHOOKS", ""), ("DEAD", ""), ("LOGS", "")),
    ]
    assert all(each.waiting == 0 == each.age_s(depth.at) for each in depth.by_priority())


async def test_what_runs_does_not_wait(queues: Queues) -> None:
    await queues.put(RunQueue(BATCH, "debate").subject, 3)
    await queues.put(RunQueue(INTERACTIVE, "single").subject, 2)
    await queues.pull(RunQueue.STREAM, RunQueue.consumer(BATCH), 2)
    depth = await read_depth(queues.bus)
    batch = part(depth, "RUNS", BATCH)
    assert (batch.waiting, batch.in_progress) == (1, 2)
    assert (depth.waiting("RUNS"), depth.in_progress("RUNS")) == (3, 2)
    for delivery in queues.deliveries:
        await delivery.ack()
    await queues.bus.flush()
    depth = await read_depth(queues.bus)
    assert (depth.waiting("RUNS"), depth.in_progress("RUNS")) == (3, 0)


async def test_the_age_is_that_of_the_oldest_message_that_was_not_delivered(queues: Queues) -> None:
    queue = await queues.generations("aged", INTERACTIVE, stored=3, pulled=2)
    depth = await read_depth(queues.bus)
    oldest = part(depth, "GENERATIONS", INTERACTIVE, "aged").oldest_at
    sequences = [delivery.sequence for delivery in queues.deliveries]
    third = await stored_at(queues.bus, queue.STREAM, max(sequences) + 1)
    assert oldest == pytest.approx(third, abs=1e-5)
    assert queues.deliveries[0].stored_at == pytest.approx(
        await stored_at(queues.bus, queue.STREAM, sequences[0]), abs=1e-5
    )
    assert depth.age_s("GENERATIONS") == pytest.approx(depth.at - third, abs=1e-5)


async def test_a_model_that_nobody_serves_waits_too(queues: Queues) -> None:
    await queues.put(GenerationQueue(BATCH, "nobody/serves it").subject, 2)
    depth = await read_depth(queues.bus)
    found = part(depth, "GENERATIONS", BATCH, "nobody/serves it")
    assert (found.waiting, found.in_progress) == (2, 0)
    assert found.oldest_at is not None


async def test_generations_that_wait_at_a_dispatcher_count_as_waiting_with_their_age(queues: Queues) -> None:
    queue = await queues.generations("ahead", INTERACTIVE, stored=5, pulled=4)
    taken = queues.deliveries[:3]  # the fourth is on a node
    held = {"one": [(queue, taken[0].stored_at)], "two": [(queue, each.stored_at) for each in taken[1:]]}
    responders = [HeldResponder(queues.bus, name, waiting.copy, lambda: 2) for name, waiting in held.items()]
    for responder in responders:
        await responder.start()
    depth = await read_depth(queues.bus)
    found = part(depth, "GENERATIONS", INTERACTIVE, "ahead")
    assert (found.waiting, found.in_progress) == (4, 1)
    assert found.oldest_at == pytest.approx(taken[0].stored_at, abs=1e-5)
    for responder in responders:
        await responder.stop()


async def test_what_is_no_report_of_a_dispatcher_is_left_out(queues: Queues) -> None:
    async def answer(message: object) -> None:
        for body in (b"{", b'{"dispatcher": "x", "dispatchers": 0}', b'{"queues": [{"count": -1}]}'):
            await queues.bus.publish(message.reply, body)  # type: ignore[attr-defined]

    subscription = await queues.bus.subscribe(HELD_SUBJECT, answer)
    assert await held_generations(queues.bus) == {}
    await subscription.unsubscribe()


async def test_the_age_of_a_priority_is_exact_with_more_waiting_models_than_are_read(queues: Queues) -> None:
    """The oldest message belongs to the model whose consumer has been served last."""
    bus, count = queues.bus, MAX_AGES + 30
    late = GenerationQueue(INTERACTIVE, "late")
    await ensure_consumer(bus, late.STREAM, late.consumer, late.subject)
    await queues.put(late.subject, 2)
    oldest = await read_depth(bus)
    others = [GenerationQueue(INTERACTIVE, f"m{number}") for number in range(count)]
    await asyncio.gather(*(ensure_consumer(bus, each.STREAM, each.consumer, each.subject) for each in others))
    for each in others:
        await queues.put(each.subject)
    depth = await read_depth(bus, max_ages=16)
    assert depth.waiting("GENERATIONS") == count + 2
    total = next(each for each in depth.by_priority() if each.queue == "GENERATIONS")
    assert total.oldest_at == part(oldest, "GENERATIONS", INTERACTIVE, "late").oldest_at
    read = [each for each in depth.parts if each.oldest_at is not None]
    assert 16 <= len(read) <= count


async def test_the_age_of_a_priority_is_exact_with_many_older_messages_in_progress(queues: Queues) -> None:
    count = TOGETHER + 4
    made = [await queues.generations(f"busy{n}", INTERACTIVE, stored=1, pulled=1) for n in range(count)]
    for queue in made:
        await queues.put(queue.subject)
    depth = await read_depth(queues.bus, max_ages=0)
    total = next(each for each in depth.by_priority() if each.queue == "GENERATIONS")
    assert (total.waiting, total.in_progress) == (count, count)
    last_pulled = max(delivery.sequence for delivery in queues.deliveries)
    assert total.oldest_at == pytest.approx(
        await stored_at(queues.bus, "GENERATIONS", last_pulled + 1), abs=1e-5
    )


async def test_a_consumer_at_its_limit_says_so(queues: Queues) -> None:
    config = shipped_declaration().stream("RUNS").consumer(RunQueue.consumer(BATCH))
    assert config is not None
    small = config.model_copy(update={"max_ack_pending": 2}).config()
    await api(queues.bus, f"CONSUMER.CREATE.RUNS.{config.name}", {"stream_name": "RUNS", "config": small})
    await queues.put(RunQueue(BATCH, "single").subject, 3)
    await queues.pull("RUNS", config.name, 2)
    depth = await read_depth(queues.bus)
    (consumer,) = [each for each in depth.consumers if each.name == config.name]
    assert (consumer.queue, consumer.ack_pending, consumer.max_ack_pending) == ("RUNS", 2, 2)
    assert consumer.redelivered == 0
    await apply(queues.bus, shipped_declaration())


async def test_a_redelivered_message_is_counted(queues: Queues) -> None:
    await queues.put(RunQueue(BATCH, "single").subject)
    await queues.pull("RUNS", RunQueue.consumer(BATCH), 1)
    await queues.deliveries[0].nak()
    queues.pullers[0].request(1)
    await eventually(lambda: len(queues.deliveries) == 2)
    depth = await read_depth(queues.bus)
    assert [each.redelivered for each in depth.consumers if each.name == RunQueue.consumer(BATCH)] == [1]


async def test_a_stream_near_its_limit_says_how_full_it_is(queues: Queues) -> None:
    declared = shipped_declaration().stream("WEBHOOKS")
    small = declared.config(replicas=1) | {"max_bytes": 100_000}
    await api(queues.bus, "STREAM.UPDATE.WEBHOOKS", small)
    await queues.put("webhooks.x", 8, b"x" * 10_000)
    (stream,) = [each for each in (await read_depth(queues.bus)).streams if each.name == "WEBHOOKS"]
    assert stream.max_bytes == 100_000
    assert 0.8 <= stream.fullness < 0.85
    assert stream.refuses
    await apply(queues.bus, shipped_declaration())


async def test_the_fullest_subject_counts_for_a_stream_that_limits_subjects(queues: Queues) -> None:
    await queues.put(RunQueue(BATCH, "a").subject, 2)
    await queues.put(RunQueue(BATCH, "b").subject, 3)
    (stream,) = [each for each in (await read_depth(queues.bus)).streams if each.name == "RUNS"]
    assert (stream.messages, stream.fullest_subject, stream.max_per_subject) == (5, 3, 20_000)


async def test_buckets_have_limits_too(queues: Queues) -> None:
    streams = {each.name: each for each in (await read_depth(queues.bus)).streams}
    assert streams["KV_jobs"].max_bytes == 64 * 2**20
    assert streams["KV_jobs"].refuses
    assert not streams["KV_response_cache"].refuses


async def test_dead_letters_wait(queues: Queues) -> None:
    await queues.put("dead.runs.x", 2)
    depth = await read_depth(queues.bus)
    assert depth.waiting("DEAD") == 2
    assert 0 < depth.age_s("DEAD") < 60


async def test_events_wait_for_their_shipper_once_there_was_one(queues: Queues) -> None:
    await queues.put("logs.info.run.-.-.-", 3)
    assert (await read_depth(queues.bus)).waiting("LOGS") == 0
    await queues.pull("LOGS", "log-shipper", 1)
    depth = await read_depth(queues.bus)
    assert (depth.waiting("LOGS"), depth.in_progress("LOGS")) == (2, 1)
