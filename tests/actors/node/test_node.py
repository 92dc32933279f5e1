from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from functools import partial

import pytest

from actors.backends.base import Output
from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.bus import Bus, BusSettings, Message
from actors.bus.subjects import NodeAddress
from actors.node.node import Node
from actors.node.process import run_node
from actors.node.settings import NodeSettings
from actors.runtime.service import ERROR_CODE
from actors.runtime.system import ActorSystem
from actors.streams.channel import SUPERSEDED, WRITER_HEADER
from orchestration.messages import Continuation, Generation, GenerationEnd, TextDelta, decode_events
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import LocalCluster, local_cluster
from tests.fixtures.nats import RunningNats


@pytest.fixture
async def cluster(nats_server: RunningNats) -> AsyncIterator[LocalCluster]:
    async with local_cluster(nats_server.url) as cluster:
        cluster.streams.name += "-away"  # the tests listen themselves: it would stop streams it did not open
        yield cluster


class Listener:
    """Hears one stream, as an asker would."""

    def __init__(self) -> None:
        self.events: list[TextDelta | GenerationEnd] = []
        self.seqs: list[int] = []
        self.writers: list[str] = []

    def heard(self, message: Message) -> None:
        for frame in decode_events(message.data):
            assert isinstance(frame.event, TextDelta | GenerationEnd)
            self.events.append(frame.event)
            self.seqs.append(frame.seq)
            self.writers.append(message.header(WRITER_HEADER))


async def send(
    cluster: LocalCluster, node: Node, generation: Generation, attempt: int = 1
) -> tuple[Message, Listener]:
    """Speak to a node as a dispatcher does."""
    listener = Listener()
    await cluster.bus.subscribe(f"stream.{generation.id}", listener.heard)
    headers = {"Orchestra-Attempt": str(attempt)} if attempt > 1 else None
    reply = await cluster.bus.request(
        NodeAddress(node.id).generate, generation.model_dump_json().encode(), headers=headers, timeout=30
    )
    return reply, listener


async def test_a_node_numbers_its_events_and_answers_with_the_last(cluster: LocalCluster) -> None:
    node = await cluster.node(speed=100)
    reply, listener = await send(cluster, node, cluster.generation("one two three", tokens=20))
    await eventually(lambda: listener.events and isinstance(listener.events[-1], GenerationEnd))
    assert listener.seqs == list(range(len(listener.events)))
    assert "".join(e.text for e in listener.events if isinstance(e, TextDelta)).split()[:3] == [
        "one",
        "two",
        "three",
    ]
    assert GenerationEnd.model_validate_json(reply.data) == listener.events[-1]
    assert sum(e.tokens for e in listener.events if isinstance(e, TextDelta)) == 20
    assert set(listener.writers) == {""}


async def test_work_that_is_delivered_again_names_its_writer(cluster: LocalCluster) -> None:
    node = await cluster.node()
    _, listener = await send(cluster, node, cluster.generation(), attempt=2)
    await eventually(lambda: listener.events and isinstance(listener.events[-1], GenerationEnd))
    assert len(set(listener.writers)) == 1
    assert "" not in listener.writers


async def test_one_more_than_the_slots_is_refused_at_once(cluster: LocalCluster) -> None:
    node = await cluster.node(slots=1, speed=10)
    running = asyncio.ensure_future(send(cluster, node, cluster.generation(tokens=1000)))
    await eventually(lambda: node.describe().running == 1)
    reply, _ = await send(cluster, node, cluster.generation())
    assert reply.header(ERROR_CODE) == "429"
    assert json.loads(reply.data)["code"] == "node_busy"
    running.cancel()
    await asyncio.wait({running})


async def test_a_model_it_does_not_serve_is_refused_with_those_it_does(cluster: LocalCluster) -> None:
    node = await cluster.node()
    reply, _ = await send(cluster, node, cluster.generation().model_copy(update={"model": "other"}))
    assert reply.header(ERROR_CODE) == "404"
    assert cluster.model in json.loads(reply.data)["message"]


async def test_a_generation_nobody_listens_to_is_stopped(cluster: LocalCluster) -> None:
    node = await cluster.node(speed=100)
    generation = cluster.generation(tokens=100_000).model_copy(update={"id": "nobody.1"})
    reply = await cluster.bus.request(
        NodeAddress(node.id).generate, generation.model_dump_json().encode(), timeout=30
    )
    assert json.loads(reply.data)["code"] == "shutting_down"
    assert node.describe().running == 0


async def test_the_backends_own_defect_ends_one_generation_and_not_the_node(cluster: LocalCluster) -> None:
    class Broken(EchoBackend):
        async def generate(self, generation: Generation) -> AsyncIterator[Output]:  # type: ignore[override]
            yield TextDelta(text="half ")
            raise AttributeError("a defect in the backend")

    backend = Broken(EchoSettings(models=(cluster.model,)))
    async with run_node(
        cluster.node_bus, backend, NodeSettings(id=f"broken-{cluster.model[-8:]}"), ActorSystem()
    ) as node:
        for _ in range(10):
            reply, listener = await send(cluster, node, cluster.generation())
            error = json.loads(reply.data)
            assert error["code"] == "backend_failed"
            assert "a defect in the backend" in error["message"]
            await eventually(partial(len, listener.events))
            assert not any(isinstance(event, GenerationEnd) for event in listener.events)
        assert node.me.host.state == "running"


async def test_a_node_joins_and_leaves_the_view_of_others_within_a_second(cluster: LocalCluster) -> None:
    registry = await cluster.registry()
    node = await cluster.node()
    await eventually(lambda: node.id in registry.nodes)
    info = registry.nodes[node.id]
    assert (info.slots, info.backend, info.serves(cluster.model)) == (4, "echo", True)
    assert cluster.model in registry.cards
    await node.leave()
    await eventually(lambda: node.id not in registry.nodes)
    assert node.id in registry.draining
    assert cluster.model not in registry.cards
    assert cluster.model in registry.known


async def test_a_load_is_told_soon(cluster: LocalCluster) -> None:
    registry = await cluster.registry()
    node = await cluster.node(speed=10)
    await eventually(lambda: node.id in registry.nodes)
    asked = asyncio.ensure_future(send(cluster, node, cluster.generation(tokens=1000)))
    await eventually(lambda: registry.nodes[node.id].running == 1)
    asked.cancel()
    await asyncio.wait({asked})


async def test_a_drain_that_runs_out_leaves_a_begun_answer_to_others(cluster: LocalCluster) -> None:
    node = await cluster.node(speed=20)
    generation = cluster.generation(tokens=100_000)
    written: list[bytes] = []
    await cluster.bus.subscribe(f"stream.{generation.id}", lambda message: written.append(message.data))
    asked = asyncio.ensure_future(send(cluster, node, generation))
    await eventually(lambda: len(written) > 1)
    assert not await node.me.host.drain(0.05)
    reply, listener = await asked
    assert json.loads(reply.data)["code"] == "shutting_down"
    assert json.loads(reply.data)["retryable"]
    assert listener.seqs == list(range(len(listener.events)))
    assert not any(isinstance(event, GenerationEnd) for event in listener.events)


async def test_a_generation_goes_on_after_its_prefix(cluster: LocalCluster) -> None:
    node = await cluster.node()
    begun = {"continuation": Continuation(text="one two", tokens=2, first_seq=7, writer="w")}
    generation = cluster.generation("one two three four").model_copy(update=begun)
    reply, listener = await send(cluster, node, generation)
    await eventually(lambda: listener.events and isinstance(listener.events[-1], GenerationEnd))
    assert "".join(e.text for e in listener.events if isinstance(e, TextDelta)) == " three four"
    assert listener.seqs == list(range(7, 7 + len(listener.events)))
    assert set(listener.writers) == {"w"}
    assert GenerationEnd.model_validate_json(reply.data).finish.usage.completion_tokens == 4


async def test_where_only_the_end_was_lost_only_the_end_is_written(cluster: LocalCluster) -> None:
    node = await cluster.node()
    begun = {"continuation": Continuation(text="one two", tokens=2, first_seq=7, writer="w")}
    reply, _ = await send(cluster, node, cluster.generation("one two", tokens=2).model_copy(update=begun))
    ended = GenerationEnd.model_validate_json(reply.data)
    assert (ended.events, ended.finish.reason, ended.finish.usage.completion_tokens) == (7, "length", 2)


async def test_a_writer_that_was_given_up_stops(cluster: LocalCluster) -> None:
    node = await cluster.node(speed=100)
    generation = cluster.generation(tokens=100_000)
    await cluster.bus.subscribe(
        f"stream.{generation.id}", lambda message: cluster.bus.post(message.reply, SUPERSEDED)
    )
    reply = await cluster.bus.request(
        NodeAddress(node.id).generate, generation.model_dump_json().encode(), timeout=30
    )
    assert json.loads(reply.data)["code"] == "shutting_down"


async def test_a_node_that_lost_nats_is_back_in_the_registry_when_it_returns(own_nats: RunningNats) -> None:
    async with local_cluster(own_nats.url) as cluster:
        bus = await Bus.connect(BusSettings(url=own_nats.url, reconnect_wait_s=0.05), name="watcher")
        registry = await cluster.registry()
        node = await cluster.node(bus=bus)
        await eventually(lambda: node.id in registry.nodes)
        own_nats.kill()
        await eventually(lambda: not bus.connected and not cluster.bus.connected)
        await asyncio.to_thread(own_nats.restart)
        await eventually(lambda: bus.connected and cluster.bus.connected)
        renewed = asyncio.Event()
        registry.on_node.append(lambda name, info: renewed.set() if name == node.id and info else None)
        await asyncio.wait_for(renewed.wait(), 30)
        assert not node.identity_lost.is_set()
        await cluster.dispatcher()
        text, _ = await cluster.ask(cluster.generation("as before"))
        assert text == "as before"
        await node.me.host.drain(1)
        await bus.close()
