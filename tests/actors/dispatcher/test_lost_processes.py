"""Processes that are killed: a node and a dispatcher, each a process of its own."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from actors.bus import provision
from actors.bus.declarations import Declaration, shipped_declaration
from actors.bus.subjects import GenerationQueue
from actors.cluster.registry import LEASE_S, Registry
from orchestration.errors import NodeLost
from orchestration.messages import Priority
from tests.actors.dispatcher.conftest import DIRECT, QUEUED
from tests.fixtures.eventually import eventually
from tests.fixtures.jetstream import api
from tests.fixtures.local_cluster import SETTINGS, LocalCluster
from tests.fixtures.nats import RunningNats
from tests.fixtures.process import Process, orchestra


@pytest.fixture(params=[QUEUED, DIRECT])
def way(request: pytest.FixtureRequest) -> str:
    way: str = request.param
    return way


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[list[Process]]:
    """Those put in here are ended after the test."""
    started: list[Process] = []
    yield started
    for each in started:
        each.__exit__(None, None, None)


def node_process(cluster: LocalCluster, url: str, name: str, folder: Path, *more: str) -> Process:
    return orchestra(
        "node",
        "--backend",
        "echo",
        "--id",
        name,
        "--serve",
        cluster.model,
        "--nats",
        url,
        "--data",
        str(folder),
        *more,
    )


async def pulled(cluster: LocalCluster, queue: GenerationQueue) -> dict[str, Any]:
    """The consumer of a queue, once a dispatcher holds one message of it."""

    async def consumer() -> dict[str, Any] | None:
        info = await api(cluster.bus, f"CONSUMER.INFO.{queue.STREAM}.{queue.consumer}")
        return info if info["num_ack_pending"] == 1 else None

    info: dict[str, Any] = await eventually(consumer)
    return info


def impatient(*, ack_wait_s: float) -> Declaration:
    """What is shipped, but with an ack_wait that a test can wait for."""
    declared = shipped_declaration()
    streams = tuple(
        stream.model_copy(
            update={
                "consumers": tuple(
                    consumer.model_copy(update={"ack_wait_s": ack_wait_s}) for consumer in stream.consumers
                )
            }
        )
        for stream in declared.streams
    )
    return declared.model_copy(update={"streams": streams})


async def test_a_killed_node_vanishes_within_ten_seconds_and_is_missed_long_before(
    cluster: LocalCluster, nats_server: RunningNats, tmp_path: Path, processes: list[Process]
) -> None:
    registry = await cluster.registry()
    name = f"victim-{cluster.model[-8:]}"
    processes.append(node_process(cluster, nats_server.url, name, tmp_path, "--speed", "20"))
    await eventually(lambda: name in registry.nodes)
    dispatcher = await cluster.dispatcher(SETTINGS.model_copy(update={"attempts": 1}), sees=1)
    asked = asyncio.ensure_future(cluster.ask(cluster.generation(tokens=100_000), within_s=60))
    await eventually(lambda: registry.nodes[name].running == 1)
    loop = asyncio.get_running_loop()
    killed = loop.time()
    processes[0].send(signal.SIGKILL)
    with pytest.raises(NodeLost, match=f"node {name} died"):
        await asyncio.wait_for(asked, 30)
    assert name in registry.nodes
    await eventually(lambda: name not in registry.nodes, within_s=10)
    assert loop.time() - killed > LEASE_S - 3  # by its lease, not by chance
    await cluster.settled(dispatcher)


async def test_a_node_that_stops_leaves_within_a_second_and_finishes_its_answer(
    cluster: LocalCluster, nats_server: RunningNats, tmp_path: Path, processes: list[Process]
) -> None:
    registry = await cluster.registry()
    name = f"leaver-{cluster.model[-8:]}"
    processes.append(node_process(cluster, nats_server.url, name, tmp_path, "--speed", "20"))
    await eventually(lambda: name in registry.nodes)
    dispatcher = await cluster.dispatcher(sees=1)
    asked = asyncio.ensure_future(cluster.ask(cluster.generation(tokens=40), within_s=60))
    await eventually(lambda: registry.nodes[name].running == 1)
    processes[0].send(signal.SIGTERM)
    await eventually(lambda: name not in registry.nodes)
    _, ended = await asked
    assert (ended.finish.node, ended.finish.usage.completion_tokens) == (name, 40)
    await eventually(lambda: name not in registry.draining)
    assert await asyncio.to_thread(processes[0].wait) == 0
    await cluster.settled(dispatcher)


async def test_generations_of_a_killed_dispatcher_are_answered_by_another(
    cluster: LocalCluster,
    nats_server: RunningNats,
    tmp_path: Path,
    processes: list[Process],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One answer is on a node when its dispatcher dies, and two wait in that dispatcher."""
    node = await cluster.node(slots=1, speed=10)
    command = ("dispatcher", "--nats", nats_server.url, "--data", str(tmp_path))
    processes.append(orchestra(*command))
    first = asyncio.ensure_future(
        cluster.ask(cluster.generation("first", tokens=25, priority=Priority.BATCH), within_s=60)
    )
    await eventually(lambda: node.describe().running == 1)
    others = [
        asyncio.ensure_future(
            cluster.ask(cluster.generation(f"other {priority}", priority=priority), within_s=60)
        )
        for priority in (Priority.INTERACTIVE, Priority.STANDARD)
    ]
    for priority in Priority:
        await pulled(cluster, GenerationQueue(priority, cluster.model))
    monkeypatch.setattr(provision, "shipped_declaration", lambda: impatient(ack_wait_s=1))
    processes[0].send(signal.SIGKILL)
    dispatcher = await cluster.dispatcher()
    texts = [text for text, _ in await asyncio.gather(first, *others)]
    assert texts[0] == " ".join(["first"] * 25)  # whole, though the work was delivered twice
    assert texts[1:] == ["other interactive", "other standard"]
    await cluster.settled(dispatcher)


def start_after(registry: Registry, name: str, before: float) -> float:
    """When the node started, once the registry has its start after `before`; 0 until then."""
    node = registry.nodes.get(name)
    return node.started_at if node is not None and node.started_at > before else 0.0


async def test_a_node_that_was_killed_can_be_started_again_at_once(
    cluster: LocalCluster, nats_server: RunningNats, tmp_path: Path, processes: list[Process]
) -> None:
    registry = await cluster.registry()
    name, before = f"again-{cluster.model[-8:]}", 0.0
    for number in range(2):
        processes.append(node_process(cluster, nats_server.url, name, tmp_path))
        await asyncio.to_thread(processes[number].wait_for, f"node {name} serves")
        before = await eventually(partial(start_after, registry, name, before))
        processes[number].send(signal.SIGKILL)
        await asyncio.to_thread(processes[number].wait)
    assert "has an entry but no connection; replacing it" in processes[1].said
    assert registry.nodes[name].started_at == before


async def test_a_second_node_of_the_same_id_is_refused(
    cluster: LocalCluster, nats_server: RunningNats, tmp_path: Path, processes: list[Process]
) -> None:
    node = await cluster.node()
    registry = await cluster.registry()
    processes.append(node_process(cluster, nats_server.url, node.id, tmp_path))
    await asyncio.to_thread(processes[0].wait_for, "already alive")
    assert await asyncio.to_thread(processes[0].wait) != 0
    assert registry.nodes[node.id].started_at == node.describe().started_at
    assert not node.identity_lost.is_set()
