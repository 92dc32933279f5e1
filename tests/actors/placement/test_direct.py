"""A generation goes straight to a node with room; while others wait for nodes, it queues behind them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import pytest
from prometheus_client import REGISTRY

from actors.bus.bus import Bus, BusSettings
from actors.bus.subjects import GenerationQueue
from actors.placement.direct import DirectPath
from actors.placement.job import encoded
from actors.runtime.envelope import Envelope
from actors.streams.client import StreamClient
from actors.streams.reader import StreamReader
from orchestration.errors import BackendFailed, BusUnavailable, NodeBusy, OrchestraError, ShuttingDown
from orchestration.messages import GenerationEnd, Priority
from orchestration.placement import BreakerSettings, Outcome
from tests.fixtures.eventually import eventually
from tests.fixtures.jetstream import api
from tests.fixtures.local_cluster import SETTINGS, LocalCluster, local_cluster
from tests.fixtures.nats import RunningNats
from tests.fixtures.reading import PATIENT
from tests.fixtures.small_memory import models_of, of, small_node

WORDS = "one two three four five six seven eight"


@pytest.fixture(params=["apart", "together"])
async def cluster(nats_server: RunningNats, request: pytest.FixtureRequest) -> AsyncIterator[LocalCluster]:
    """The nodes are on another connection, as in another process, or on that of the caller."""
    async with local_cluster(nats_server.url, direct=True, together=request.param == "together") as cluster:
        yield cluster


@asynccontextmanager
async def another_caller(cluster: LocalCluster, url: str) -> AsyncIterator[LocalCluster]:
    """The same nodes, as another process calls them."""
    bus = await Bus.connect(BusSettings(url=url, reconnect_wait_s=0.05), name="another")
    registry = await cluster.registry()
    path = DirectPath(bus, registry, SETTINGS)
    streams = StreamClient(bus, PATIENT, direct=path)
    await streams.start()
    try:
        yield LocalCluster(
            bus, cluster.node_bus, streams, cluster.stack, True, cluster.model, cluster.nodes, path
        )
    finally:
        await streams.stop()
        await bus.close()


async def puts(cluster: LocalCluster) -> int:
    """How many generations were ever put on the queues of the server."""
    info = await api(cluster.bus, f"STREAM.INFO.{GenerationQueue.STREAM}")
    last: int = info["state"]["last_seq"]
    return last


def counted(cluster: LocalCluster, outcome: str, metric: str = "direct") -> float:
    labels = {"model": cluster.model, "outcome": outcome}
    return REGISTRY.get_sample_value(f"orchestra_placement_{metric}_total", labels) or 0


async def running(cluster: LocalCluster, count: int) -> None:
    await eventually(lambda: sum(cluster.running().values()) == count)


async def test_a_generation_with_room_goes_past_the_queue(cluster: LocalCluster) -> None:
    await cluster.node()
    dispatcher = await cluster.dispatcher()
    before = await puts(cluster)
    answers = await asyncio.gather(*(cluster.ask(cluster.generation(f"{n} {WORDS}")) for n in range(4)))
    assert [text for text, _ in answers] == [f"{n} {WORDS}" for n in range(4)]
    assert await puts(cluster) == before
    assert counted(cluster, "placed") == 4
    await cluster.settled(dispatcher)


async def test_what_finds_no_room_is_queued_and_answered_in_order(cluster: LocalCluster) -> None:
    await cluster.node(slots=2, speed=50)
    dispatcher = await cluster.dispatcher()
    ended: list[int] = []

    async def ask(number: int) -> None:
        await cluster.ask(cluster.generation(WORDS))
        ended.append(number)

    await asyncio.gather(*(ask(number) for number in range(12)))
    assert counted(cluster, "placed") == 2
    assert counted(cluster, "queued") == 10
    assert [number // 2 for number in ended] == [number // 2 for number in range(12)]
    await cluster.settled(dispatcher)


async def test_urgent_work_overtakes_what_waits(cluster: LocalCluster) -> None:
    await cluster.node(slots=1, speed=50)
    dispatcher = await cluster.dispatcher()
    ended: list[str] = []

    async def ask(words: str, priority: Priority) -> None:
        await cluster.ask(cluster.generation(words, priority=priority))
        ended.append(words)

    tasks = [asyncio.ensure_future(ask(WORDS, Priority.BATCH))]
    await running(cluster, 1)
    tasks += [asyncio.ensure_future(ask(f"batch {n}", Priority.BATCH)) for n in range(4)]
    await eventually(lambda: dispatcher.snapshot().total_waiting)
    tasks.append(asyncio.ensure_future(ask("urgent", Priority.INTERACTIVE)))
    await asyncio.gather(*tasks)
    assert ended.index("urgent") == 1
    await cluster.settled(dispatcher)


async def test_another_caller_queues_behind_what_waits_and_goes_straight_again_afterwards(
    cluster: LocalCluster, nats_server: RunningNats
) -> None:
    node = await cluster.node(slots=1, speed=20)
    dispatcher = await cluster.dispatcher()
    async with another_caller(cluster, nats_server.url) as other:
        assert other.direct is not None
        backlog = other.direct.backlog
        asked = [asyncio.ensure_future(cluster.ask(cluster.generation(WORDS))) for _ in range(3)]
        await eventually(lambda: backlog.waits(cluster.model))
        node.slots = 8  # there is room now, which the others were there for first
        await other.ask(other.generation("behind"))
        assert counted(cluster, "placed") == 1
        await asyncio.gather(*asked)
        await eventually(lambda: not backlog.waits(cluster.model))
        await other.ask(other.generation("straight"))
        assert counted(cluster, "placed") == 2
        await cluster.settled(dispatcher)


async def test_the_backlog_of_a_dispatcher_that_vanished_is_forgotten(
    cluster: LocalCluster, nats_server: RunningNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.placement.backlog.EXPIRY_S", 0.3)
    await cluster.node()
    await cluster.dispatcher()
    assert cluster.direct is not None
    report = f'{{"dispatcher": "killed", "models": ["{cluster.model}"]}}'.encode()
    cluster.bus.post("placement.backlog", report)
    await eventually(lambda: cluster.direct and cluster.direct.backlog.waits(cluster.model))
    cluster.bus.post("placement.backlog", b"not a report")
    await eventually(lambda: cluster.direct and not cluster.direct.backlog.waits(cluster.model))
    await cluster.ask(cluster.generation())
    assert counted(cluster, "placed") == 1


async def test_a_node_that_is_full_says_so_at_once_and_the_call_is_queued(
    cluster: LocalCluster, nats_server: RunningNats
) -> None:
    """Two callers that see the same free slot."""
    node = await cluster.node(slots=4, speed=20)
    dispatcher = await cluster.dispatcher()
    async with another_caller(cluster, nats_server.url) as other:
        asked = [
            asyncio.ensure_future(caller.ask(caller.generation(WORDS)))
            for caller in (cluster, other)
            for _ in range(4)
        ]
        answers = await asyncio.gather(*asked)
    assert [text for text, _ in answers] == [WORDS] * 8
    assert counted(cluster, "moved") > 0
    assert counted(cluster, "ok", "ended") == 8, "each ends once, where it is answered"
    assert not counted(cluster, NodeBusy.code, "ended")
    assert node.describe().running == 0
    await cluster.settled(dispatcher)


async def test_work_that_waits_gets_the_slot_of_a_direct_call_when_that_ends(
    cluster: LocalCluster, nats_server: RunningNats
) -> None:
    """Sooner than the node reports it."""
    node = await cluster.node(slots=1)
    dispatcher = await cluster.dispatcher()
    node._registration.notify_change = lambda: None  # type: ignore[method-assign]
    held = asyncio.ensure_future(cluster.ask(cluster.generation(tokens=100_000)))
    await running(cluster, 1)
    await node._registration.refresh()
    await eventually(lambda: dispatcher.placer.room(cluster.model) == (0, 1))
    waits = asyncio.ensure_future(cluster.ask(cluster.generation(WORDS)))
    await eventually(lambda: dispatcher.snapshot().total_waiting == 1)
    held.cancel()
    text, _ = await waits
    assert text == WORDS
    await cluster.settled(dispatcher)


async def test_a_model_that_must_be_loaded_first_is_left_to_the_dispatcher(cluster: LocalCluster) -> None:
    first, second = models_of(cluster, 2)
    await small_node(cluster, [first, second], load_s=0.05)
    dispatcher = await cluster.dispatcher(sees=0)
    await eventually(lambda: dispatcher.registry.serving(second))
    before = await puts(cluster)
    await cluster.ask(of(cluster, first, WORDS))
    assert await puts(cluster) == before, "the node holds it since its start"
    await cluster.ask(of(cluster, second, WORDS))
    assert await puts(cluster) == before + 1


async def test_a_caller_who_leaves_at_once_leaves_no_slot_taken(cluster: LocalCluster) -> None:
    await cluster.node()
    dispatcher = await cluster.dispatcher()
    for _ in range(20):
        generation = cluster.generation(tokens=100_000)
        async with aclosing(cluster.streams.stream(generation, Envelope.within(30))) as events:
            waiting = asyncio.ensure_future(anext(events))
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait({waiting})
    await cluster.settled(dispatcher)
    assert counted(cluster, "placed") > 0


async def test_a_process_that_stops_stops_its_calls(cluster: LocalCluster, nats_server: RunningNats) -> None:
    await cluster.node()
    dispatcher = await cluster.dispatcher()
    async with another_caller(cluster, nats_server.url) as other:
        asked = asyncio.ensure_future(other.ask(other.generation(tokens=100_000)))
        await running(cluster, 1)
    with pytest.raises(ShuttingDown):
        await asked
    await running(cluster, 0)
    await cluster.settled(dispatcher)


async def test_without_nats_a_call_fails_at_once(own_nats: RunningNats) -> None:
    async with local_cluster(own_nats.url, direct=True) as cluster:
        await cluster.node()
        await cluster.dispatcher()
        await cluster.ask(cluster.generation())
        own_nats.kill()
        await eventually(lambda: not cluster.bus.connected)
        with pytest.raises(BusUnavailable):
            await cluster.ask(cluster.generation())
        own_nats.restart()
        await eventually(lambda: cluster.bus.connected)


async def test_a_direct_call_outlives_a_restart_of_nats(own_nats: RunningNats) -> None:
    async with local_cluster(own_nats.url, direct=True) as cluster:
        for _ in range(2):
            await cluster.node(speed=20, slots=1)
        dispatcher = await cluster.dispatcher()
        asked = [asyncio.ensure_future(cluster.ask(cluster.generation(WORDS, tokens=48))) for _ in range(2)]
        await running(cluster, 2)
        await eventually(lambda: all(each._expected > 3 for each in cluster.streams.readers.values()))
        own_nats.kill()
        await eventually(lambda: not cluster.bus.connected)
        own_nats.restart()
        answers = await asyncio.gather(*asked)
        assert [text for text, _ in answers] == [" ".join([WORDS] * 6)] * 2
        assert {ended.finish.usage.completion_tokens for _, ended in answers} == {48}
        await cluster.settled(dispatcher)


async def test_a_defect_ends_one_call_with_an_error(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    await cluster.node()
    dispatcher = await cluster.dispatcher()

    async def defect(*_: object, **__: object) -> None:
        raise KeyError("a defect")

    monkeypatch.setattr("actors.placement.node_client.NodeClient._call", defect)
    with pytest.raises(Exception, match="KeyError: 'a defect'"):
        await cluster.ask(cluster.generation())
    monkeypatch.undo()
    text, _ = await cluster.ask(cluster.generation(WORDS))
    assert text == WORDS
    await cluster.settled(dispatcher)


async def test_what_was_queued_is_forgotten_with_its_stream(cluster: LocalCluster) -> None:
    await cluster.node(slots=1, speed=200)
    dispatcher = await cluster.dispatcher()
    await asyncio.gather(*(cluster.ask(cluster.generation()) for _ in range(10)))
    assert cluster.direct is not None
    assert not cluster.direct._queued_models
    assert not any(cluster.direct._queued.values())
    await cluster.settled(dispatcher)


async def test_a_call_given_up_before_it_began_leaves_its_node_to_be_probed(nats_server: RunningNats) -> None:
    settings = SETTINGS.model_copy(update={"breaker": BreakerSettings(dwell_s=0.01, hung_s=0.01)})
    async with local_cluster(nats_server.url, direct=True) as cluster:
        node = await cluster.node()
        dispatcher = await cluster.dispatcher(settings)
        assert cluster.direct is not None
        path, generation = cluster.direct, cluster.generation()
        replica = path.executor.placer.chooser.index.replicas[cluster.model][node.id]
        replica.breaker.end(Outcome.HUNG, time.monotonic(), probe=False)
        path.executor.placer.chooser.index.breaker_changed(replica, time.monotonic())

        def begins() -> bool:
            async def requeue(body: bytes, moves: int, error: OrchestraError | None) -> None: ...

            reader = StreamReader(lambda seq: None)
            return path.begin(generation, Envelope.within(30), reader, requeue)

        await eventually(begins)
        assert replica.breaker.probing
        path.close(generation.id, ended=False)
        await cluster.settled(dispatcher)
        assert not replica.breaker.probing
        assert not path.executor.placer._probes
        await cluster.ask(cluster.generation())
        assert counted(cluster, "placed") == 2


async def test_a_generation_that_is_put_on_its_queue_twice_is_there_once(cluster: LocalCluster) -> None:
    """As when NATS was lost before it acknowledged the first."""
    generation = cluster.generation()
    streams = cluster.streams
    streams.readers[generation.id] = StreamReader(lambda seq: None)
    for _ in range(2):
        await streams._requeue(generation, Envelope.within(30), encoded(generation), 0, None)
    del streams.readers[generation.id]
    assert await cluster.queued() == 1


async def test_later_generations_wait_behind_one_that_moved_to_the_queue(cluster: LocalCluster) -> None:
    await cluster.node()
    await cluster.dispatcher()
    assert cluster.direct is not None
    moved, streams = cluster.generation(), cluster.streams
    reader = streams.readers[moved.id] = StreamReader(lambda seq: None)
    requeued = asyncio.ensure_future(
        streams._requeue(moved, Envelope.within(30), encoded(moved), 0, None),
    )
    await asyncio.sleep(0)
    assert cluster.direct._waits(cluster.model)
    await requeued
    await eventually(lambda: reader.begun)
    del streams.readers[moved.id]
    cluster.direct.close(moved.id, ended=True)


async def test_a_call_that_failed_is_not_cancelled_as_well(cluster: LocalCluster) -> None:
    """Everything in the cluster hears a cancel, and remembers it."""
    await cluster.node(fail_every=1)
    dispatcher = await cluster.dispatcher()
    with pytest.raises(BackendFailed):
        await cluster.ask(cluster.generation())
    await cluster.settled(dispatcher)
    await cluster.bus.flush()
    assert not dispatcher.snapshot().cancelled


async def test_a_call_of_a_caller_that_names_an_attempt_frees_its_slot(cluster: LocalCluster) -> None:
    """An attempt is a delivery by a queue, after which the node would write under another name."""
    await cluster.node()
    dispatcher = await cluster.dispatcher()
    envelope = replace(Envelope.within(30), attempt=2)
    async with aclosing(cluster.streams.stream(cluster.generation(), envelope)) as events:
        assert isinstance([event async for event in events][-1], GenerationEnd)
    await cluster.settled(dispatcher)
    assert counted(cluster, "placed") == 1


async def test_nodes_that_failed_before_a_generation_was_queued_count_as_attempts(
    nats_server: RunningNats,
) -> None:
    async with local_cluster(nats_server.url, direct=True) as cluster:
        first = await cluster.node(speed=20)
        dispatcher = await cluster.dispatcher(SETTINGS.model_copy(update={"attempts": 2}))
        asked = asyncio.ensure_future(cluster.ask(cluster.generation(WORDS, tokens=100_000)))
        await running(cluster, 1)
        first.drain_requested.set()  # it stops before the answer is complete
        await eventually(lambda: counted(cluster, "moved") == 1)
        second = await cluster.node(speed=20)
        await eventually(lambda: second.describe().running == 1)
        second.drain_requested.set()
        with pytest.raises(ShuttingDown):
            await asked
        await cluster.settled(dispatcher)
