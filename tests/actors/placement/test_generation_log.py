"""The events of model calls and nodes: generations that move, breakers, and nodes that come and go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from actors.bus.key_value import Bucket
from actors.cluster.registry import BUCKET, Registry
from orchestration.errors import DeadlineExceeded
from orchestration.log_events import LogEvent, LogLevel
from orchestration.messages import Hardware, ModelCard, NodeInfo
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import LocalCluster, local_cluster
from tests.fixtures.log_events import recorded_events
from tests.fixtures.nats import RunningNats

WORDS = "one two three four five six seven eight"


@pytest.fixture(params=[False, True], ids=["queued", "direct"])
async def cluster(nats_server: RunningNats, request: pytest.FixtureRequest) -> AsyncIterator[LocalCluster]:
    async with local_cluster(nats_server.url, direct=request.param) as cluster:
        yield cluster


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    with recorded_events() as found:
        yield found


def named(events: list[LogEvent], name: str) -> list[LogEvent]:
    return [event for event in events if event.name == name]


async def test_a_generation_that_moves_tells_from_where_why_and_how_it_ended(
    cluster: LocalCluster, events: list[LogEvent]
) -> None:
    await cluster.node("a", fail_every=1, fail_after=3, slots=8)
    await cluster.node("b", slots=4)
    dispatcher = await cluster.dispatcher()
    answers = await asyncio.gather(*(cluster.ask(cluster.generation(WORDS)) for _ in range(10)))
    await cluster.settled(dispatcher)
    ends = named(events, "generation.ended")
    ends = [event for event in ends if event.model == cluster.model]
    assert len(ends) == 10
    assert {event.node for event in ends} == {"b"}
    assert sum(event.data["output_tokens"] for event in ends) == sum(
        ended.finish.usage.completion_tokens for _, ended in answers
    )
    moves = [event for event in named(events, "generation.moved") if event.model == cluster.model]
    assert moves
    assert {(event.node, event.level) for event in moves} == {("a", LogLevel.WARNING)}
    assert {event.run for event in moves} <= {event.run for event in ends}
    opened = [event for event in named(events, "breaker.opened") if event.model == cluster.model]
    assert {event.node for event in opened} <= {"a"}


async def test_a_generation_without_a_node_that_can_ends_in_the_log(
    cluster: LocalCluster, events: list[LogEvent]
) -> None:
    await cluster.node("bad", fail_every=1, fail_after=0)
    await cluster.dispatcher()
    with pytest.raises(Exception, match=r".+"):
        await cluster.ask(cluster.generation(WORDS))
    (ended,) = await eventually(
        lambda: [each for each in named(events, "generation.ended") if each.model == cluster.model]
    )
    assert ended.data["outcome"] == "backend_failed"


async def test_a_generation_tells_how_long_it_waited_for_a_free_slot(
    cluster: LocalCluster, events: list[LogEvent]
) -> None:
    """Also where a node refuses it first, and before the dispatcher pulls it."""
    await cluster.node("a", slots=1, speed=20)
    dispatcher = await cluster.dispatcher()
    began = time.monotonic()

    async def ask() -> tuple[str, float]:
        generation = cluster.generation(WORDS)
        await cluster.ask(generation)
        return generation.id, time.monotonic() - began

    took = dict(await asyncio.gather(*(ask() for _ in range(4))))
    await cluster.settled(dispatcher)
    ends = {
        event.data["generation"]: event.data
        for event in named(events, "generation.ended")
        if event.model == cluster.model
    }
    assert ends.keys() == took.keys()
    for generation, seconds in took.items():
        ended = ends[generation]
        assert ended["queue_s"] == pytest.approx(seconds - ended["duration_s"], abs=0.2)


async def test_a_generation_that_expires_in_its_queue_tells_how_long_it_waited(
    cluster: LocalCluster, events: list[LogEvent]
) -> None:
    await cluster.node("a", slots=1, speed=20)
    dispatcher = await cluster.dispatcher()
    first = asyncio.ensure_future(cluster.ask(cluster.generation(WORDS * 4)))
    await eventually(lambda: cluster.executor(dispatcher).in_flight.counts.get("a") == 1)
    with pytest.raises(DeadlineExceeded):
        await cluster.ask(cluster.generation(WORDS), within_s=0.5)
    (ended,) = await eventually(lambda: [each for each in named(events, "generation.ended") if not each.node])
    assert ended.data["outcome"] == "deadline_exceeded"
    assert 0 < ended.data["queue_s"] <= 0.55  # not longer than its deadline allowed
    await first


async def test_a_generation_tells_how_long_its_model_took_to_load(
    cluster: LocalCluster, events: list[LogEvent]
) -> None:
    node = await cluster.node("a", load_s=0.3, model_mb=600)
    dispatcher = await cluster.dispatcher()
    await node.models.unload(cluster.model)
    for _ in range(2):
        await cluster.ask(cluster.generation(WORDS))
    await cluster.settled(dispatcher)
    cold, warm = (each for each in named(events, "generation.ended") if each.model == cluster.model)
    assert cold.data["load_s"] >= 0.2
    assert "load_s" not in warm.data


async def test_a_node_tells_that_it_joined_and_left(nats_server: RunningNats, events: list[LogEvent]) -> None:
    async with local_cluster(nats_server.url) as cluster:
        node = await cluster.node()
    own = [event.name for event in events if event.node == node.id]
    assert own == ["node.joined", "node.draining", "node.left"]


async def test_a_node_that_is_lost_is_one_fact_however_many_notice(
    nats_server: RunningNats, events: list[LogEvent]
) -> None:
    async with local_cluster(nats_server.url) as cluster:
        registries = [Registry(cluster.bus, lease_s=1.2) for _ in range(2)]
        for registry in registries:
            await registry.start()
        card = ModelCard(name="m")
        hardware = Hardware(cores=1, memory_bytes=1, provider="none")
        node = NodeInfo(
            id="lost-1", backend="echo", models=(card,), hardware=hardware, slots=1, started_at=5.0
        )
        await Bucket(cluster.bus, BUCKET).put(node.id, node.model_dump_json().encode())
        await eventually(lambda: all("lost-1" in registry.nodes for registry in registries))
        await eventually(lambda: not any("lost-1" in registry.nodes for registry in registries))
        for registry in registries:
            await registry.stop()
    losses = [event for event in named(events, "node.lost") if event.node == "lost-1"]
    assert len(losses) == 2
    assert len({event.id for event in losses}) == 1
