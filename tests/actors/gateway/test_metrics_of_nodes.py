"""What a gateway's metrics say of nodes: those that fail, leave, or have names that nobody should give."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest

from actors.backends.base import Backend
from actors.backends.echo import EchoBackend, EchoSettings
from actors.node.process import run_node
from actors.node.settings import NodeSettings
from actors.runtime.system import ActorSystem
from actors.telemetry.labels import NODES
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually
from tests.fixtures.prometheus import complaints
from tests.fixtures.scrape import scrape

CHAT = "/v1/chat/completions"


def echo(model: str, **settings: Any) -> Backend:
    return EchoBackend(EchoSettings(models=(model,), **settings))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    backends = [
        ("breaks-off", echo("moved", fail_every=1, fail_after=3, slots=64)),
        ("goes-on", echo("moved", slots=1)),
        ("keeps-failing", echo("broken", fail_every=1)),
    ]
    with running_cluster(backends) as running:
        yield running


@pytest.fixture
async def http(cluster: Cluster) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cluster.url) as session:
        yield session


def chat(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": "a b c d e f g h"}]} | more


async def test_an_answer_that_moved_to_another_node_is_counted_once_with_all_its_tokens(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    name, moved = "orchestra_gateway_tokens_total", "orchestra_placement_moved_total"
    before = await scrape(cluster.url)
    stated = answers = 0
    for _ in range(20):  # until one began on the node that breaks off
        async with http.post(CHAT, json=chat("moved", cache={"no_store": True})) as answer:
            said = await answer.json()
            assert answer.status == 200
        stated += said["usage"]["completion_tokens"]
        answers += 1
        after = await scrape(cluster.url)
        if after.total(moved, model="moved") > before.total(moved, model="moved"):
            break
    else:
        raise AssertionError("no answer began on the node that breaks off")

    def grew(name: str, **labels: str) -> float:
        return after.total(name, **labels) - before.total(name, **labels)

    assert grew("orchestra_gateway_answers_total", model="moved", outcome="ok") == answers
    assert grew(name, model="moved", direction="completion") == stated
    assert grew("orchestra_gateway_moves_total", model="moved") == 1
    assert grew("orchestra_node_tokens_total", model="moved", direction="completion") == stated


async def test_a_breaker_that_opens_is_seen_by_model_and_node_and_a_closed_one_is_not(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    async def opened() -> bool:
        async with http.post(CHAT, json=chat("broken"), headers={"X-Request-Timeout": "2"}) as answer:
            await answer.read()
        scraped = await scrape(cluster.url)
        assert scraped.total("orchestra_placement_breaker_open", node="goes-on") == 0
        return scraped.total("orchestra_placement_breaker_open", model="broken", node="keeps-failing") == 1

    await eventually(opened)


async def test_a_model_with_a_newline_in_its_name_has_a_readable_label(
    cluster: Cluster, http: aiohttp.ClientSession, promtool: str
) -> None:
    """An upstream may name its models as it likes."""
    name = 'two\nlines "quoted" {a="b"}'

    async def serve() -> None:
        async with run_node(cluster.bus, echo(name), NodeSettings(id="odd\nnode"), ActorSystem()):
            await eventually(lambda: cluster.running.gateway.registry.serving(name))
            async with aiohttp.ClientSession(cluster.url) as session:
                async with session.post(CHAT, json=chat(name)) as answer:
                    assert answer.status == 200
                    await answer.read()

    await asyncio.to_thread(cluster.call, serve())
    scraped = await scrape(cluster.url)
    label = 'two_lines "quoted" {a="b"}'
    assert scraped.total("orchestra_gateway_answers_total", model=label, outcome="ok") == 1
    assert scraped.total("orchestra_placement_placed_total", model=label, node="odd_node") == 1
    assert await asyncio.to_thread(complaints, promtool, scraped.text) == ""


async def test_a_model_without_nodes_is_reported_as_such_and_a_node_that_left_loses_its_series(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    async def serve() -> None:
        async with run_node(cluster.bus, echo("leaving"), NodeSettings(id="leaver"), ActorSystem()):
            await eventually(lambda: cluster.running.gateway.registry.serving("leaving"))
            async with aiohttp.ClientSession(cluster.url) as session:
                async with session.post(CHAT, json=chat("leaving")) as answer:
                    assert json.loads(await answer.text())["orchestra"]["node"] == "leaver"
            there = await scrape(cluster.url)
            assert there.total("orchestra_cluster_model_nodes", model="leaving") == 1
            assert "leaver" in there.labels("node")

    await asyncio.to_thread(cluster.call, serve())

    async def gone() -> bool:
        scraped = await scrape(cluster.url)
        models = [
            value
            for (name, labels), value in scraped.samples.items()
            if name == "orchestra_cluster_model_nodes" and ("model", "leaving") in labels
        ]
        return models == [0]

    await eventually(gone)
    assert "leaver" in (await scrape(cluster.url)).labels("node")
    NODES.prune(gone_s=0)
    after = await scrape(cluster.url)
    assert "leaver" not in after.labels("node")
    assert "goes-on" in after.labels("node")
