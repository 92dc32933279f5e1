"""Less urgent work gets its share and no more; a generation that is delivered endlessly is given up."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from actors.bus.jetstream import Delivery, Puller
from actors.bus.provision import ensure_consumer
from actors.bus.subjects import GenerationQueue
from actors.jobs.dead_letters import DeadLetterStore
from orchestration.errors import InternalError
from orchestration.messages import Priority
from tests.actors.dispatcher.conftest import DIRECT, QUEUED, TOGETHER
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import SETTINGS, LocalCluster

WAYS = [QUEUED, DIRECT, TOGETHER]


async def test_batch_work_progresses_by_its_share_under_urgent_work_without_end(
    cluster: LocalCluster,
) -> None:
    await cluster.node(slots=4, speed=100)
    order: list[Priority] = []
    stop = asyncio.Event()

    lengths = itertools.cycle((3, 7, 4, 9, 5))  # so that slots become free one after another

    async def ask(priority: Priority) -> None:
        await cluster.ask(cluster.generation(tokens=next(lengths), priority=priority), within_s=60)
        order.append(priority)

    async def always_urgent() -> None:
        while not stop.is_set():
            await ask(Priority.INTERACTIVE)

    async with asyncio.TaskGroup() as group:
        urgent = [group.create_task(always_urgent()) for _ in range(24)]
        dispatcher = await cluster.dispatcher()
        await eventually(lambda: len(order) > 20)
        began = len(order)
        lesser = [group.create_task(ask(Priority.BATCH)) for _ in range(6)]
        lesser += [group.create_task(ask(Priority.STANDARD)) for _ in range(6)]
        await eventually(lambda: all(task.done() for task in lesser))
        assert not any(task.done() for task in urgent), "urgent work never paused"
        stop.set()
    during = order[began:]
    last = max(index for index, priority in enumerate(during) if priority is Priority.BATCH)
    share = during[: last + 1].count(Priority.INTERACTIVE) / 6
    assert share >= 5, f"each batch start stood behind {share:.0f} urgent ones"
    standard = max(index for index, priority in enumerate(during) if priority is Priority.STANDARD)
    assert standard < last, "standard work was done before batch work"
    await cluster.settled(dispatcher)


@pytest.mark.parametrize("way", WAYS)
async def test_a_model_that_is_never_idle_does_not_keep_the_slots_from_another(cluster: LocalCluster) -> None:
    other = f"{cluster.model}-other"
    await cluster.node(models=(cluster.model, other), slots=1, speed=200)  # type: ignore[arg-type]
    dispatcher = await cluster.dispatcher()
    stop = asyncio.Event()

    async def always() -> None:
        while not stop.is_set():
            await cluster.ask(cluster.generation("one two three four"))

    async with asyncio.TaskGroup() as group:
        for _ in range(4):
            group.create_task(always())
        await eventually(lambda: any(dispatcher.snapshot().waiting.values()))
        for _ in range(3):
            await cluster.ask(cluster.generation().model_copy(update={"model": other}))
        stop.set()
    await cluster.settled(dispatcher)


async def test_a_generation_that_no_dispatcher_survives_becomes_a_dead_letter_and_an_error(
    cluster: LocalCluster,
) -> None:
    queue = GenerationQueue(Priority.STANDARD, cluster.model)
    await ensure_consumer(cluster.bus, queue.STREAM, queue.consumer, queue.subject)
    pulled: asyncio.Queue[Delivery] = asyncio.Queue()
    puller = Puller(cluster.bus, queue.STREAM, queue.consumer, pulled.put_nowait)
    await puller.start()
    generation = cluster.generation("deadly", priority=Priority.STANDARD)
    asked = asyncio.ensure_future(cluster.ask(generation))
    for _ in range(SETTINGS.deliveries):
        puller.request(1)
        await (await pulled.get()).nak()  # stands for the death of a dispatcher
    await puller.stop()
    await cluster.node()
    dispatcher = await cluster.dispatcher()
    with pytest.raises(InternalError, match="after 5 deliveries"):
        await asked
    letters, _ = await DeadLetterStore(cluster.bus).list(limit=50)
    letter = next(each for each in letters if each.id == generation.id)
    assert (letter.kind, letter.attempts) == ("generations", 5)
    await cluster.settled(dispatcher)
