"""Requests for models whose nodes are away wait for one to come back, until their deadline."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from actors.agents.process import run_agents
from actors.agents.settings import AgentsSettings
from actors.cluster.registry import NO_FALLBACKS, Fallbacks
from actors.gateway.process import RunningGateway, run_gateway
from actors.gateway.settings import GatewaySettings
from actors.placement.settings import PlacementSettings
from actors.runtime.system import ActorSystem
from tests.fixtures.eventually import eventually
from tests.fixtures.local_cluster import SETTINGS, LocalCluster, local_cluster
from tests.fixtures.nats import RunningNats
from tests.fixtures.process import orchestra

WORDS = "say this when somebody is there"


@pytest.fixture
async def cluster(own_nats: RunningNats) -> AsyncIterator[LocalCluster]:
    async with local_cluster(own_nats.url) as cluster:
        yield cluster


@asynccontextmanager
async def gateway(
    cluster: LocalCluster, *, fallbacks: Fallbacks = NO_FALLBACKS, **settings: Any
) -> AsyncIterator[RunningGateway]:
    said = GatewaySettings(http="127.0.0.1:0", drain_s=1, **settings)
    placement = PlacementSettings.model_validate({"fallbacks": fallbacks})
    async with run_gateway(cluster.bus, said, ActorSystem(), placement=placement) as running:
        yield running


async def ask(running: RunningGateway, model: str, *, within_s: float = 30) -> tuple[int, Any]:
    """Status and body of a chat."""
    body = {"model": model, "messages": [{"role": "user", "content": WORDS}]}
    headers = {"X-Request-Timeout": f"{within_s:g}"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{running.url}/v1/chat/completions", json=body, headers=headers) as answer,
    ):
        return answer.status, await answer.json()


def answered(reply: tuple[int, Any]) -> tuple[str, str]:
    """The text, and the model that said it."""
    status, body = reply
    assert status == 200, body
    return body["choices"][0]["message"]["content"], body["orchestra"]["model"]


async def away(cluster: LocalCluster, running: RunningGateway) -> None:
    """All nodes leave, which the gateway sees."""
    registry = running.gateway.registry
    await eventually(lambda: registry.nodes)
    for node in cluster.nodes.values():
        await node.leave()
    await eventually(lambda: not registry.nodes)


async def back(cluster: LocalCluster) -> None:
    for node in cluster.nodes.values():
        await node.join()


async def waits(asked: asyncio.Task[tuple[int, Any]], cluster: LocalCluster) -> None:
    """It is in the queue, and nobody refuses it."""
    async with asyncio.timeout(30):
        while not await cluster.queued():  # noqa: ASYNC110 - asks the server
            await asyncio.sleep(0.01)
    assert not asked.done()


async def test_a_request_sent_while_no_node_lives_is_answered_once_one_is_back(cluster: LocalCluster) -> None:
    await cluster.node()
    dispatcher = await cluster.dispatcher()
    async with gateway(cluster) as running:
        await away(cluster, running)
        asked = [asyncio.ensure_future(ask(running, cluster.model)) for _ in range(20)]
        await waits(asked[0], cluster)
        await back(cluster)
        assert [answered(reply) for reply in await asyncio.gather(*asked)] == [(WORDS, cluster.model)] * 20
        await cluster.settled(dispatcher)


async def test_a_gateway_and_a_dispatcher_that_never_saw_a_node_of_the_model_wait_for_one_too(
    cluster: LocalCluster, own_nats: RunningNats, tmp_path: Path
) -> None:
    words = ("node", "--backend", "echo", "--serve", cluster.model, "--nats", own_nats.url)
    first = await cluster.dispatcher(sees=0)
    with orchestra(*words, "--data", str(tmp_path)) as process:
        await asyncio.to_thread(process.wait_for, "serves")
        await eventually(lambda: len(first.snapshot().pulled_models) == 1)
    await eventually(lambda: not first.registry.nodes)
    async with gateway(cluster) as running:
        await cluster.dispatcher(sees=0)
        assert running.gateway.registry.nodes == {}
        asked = asyncio.ensure_future(ask(running, cluster.model, within_s=60))
        await waits(asked, cluster)
        status, body = await ask(running, "never-served")
        assert (status, body["error"]["code"]) == (503, "no_node")
        with orchestra(*words, "--data", str(tmp_path)):
            assert answered(await asked) == (WORDS, cluster.model)


async def test_a_declared_fallback_answers_for_a_model_that_no_node_ever_served(
    cluster: LocalCluster,
) -> None:
    await cluster.node()
    declared = {"large": ("not-served", cluster.model)}
    dispatcher = await cluster.dispatcher(SETTINGS.model_copy(update={"fallbacks": declared}))
    async with gateway(cluster, fallbacks=declared) as running:
        await eventually(lambda: running.gateway.registry.nodes)
        assert answered(await ask(running, "large")) == (WORDS, cluster.model)
        status, body = await ask(running, "huge")
        assert (status, body["error"]["code"]) == (404, "unknown_model")
        await cluster.settled(dispatcher)


async def test_a_request_waits_for_its_fallback_too(cluster: LocalCluster) -> None:
    await cluster.node()
    declared = {"large": (cluster.model,)}
    dispatcher = await cluster.dispatcher(SETTINGS.model_copy(update={"fallbacks": declared}))
    other = LocalCluster(cluster.bus, cluster.node_bus, cluster.streams, cluster.stack, model="large")
    large = await other.node()
    async with gateway(cluster, fallbacks=declared) as running:
        await eventually(lambda: len(running.gateway.registry.nodes) == 2)
        await large.leave()
        await away(cluster, running)
        asked = asyncio.ensure_future(ask(running, "large"))
        await waits(asked, other)
        await back(cluster)
        assert answered(await asked) == (WORDS, cluster.model)
        await cluster.settled(dispatcher)


async def test_a_pattern_waits_for_a_node_too(cluster: LocalCluster) -> None:
    await cluster.node()
    await cluster.dispatcher()
    async with (
        run_agents(cluster.bus, AgentsSettings(drain_timeout_s=1), ActorSystem()),
        gateway(cluster) as running,
    ):
        await away(cluster, running)
        asked = asyncio.ensure_future(ask(running, "orchestra/single"))
        await eventually(lambda: running.gateway.streams.open_streams == 1)
        await back(cluster)
        text, model = answered(await asked)
        assert (text[: len(WORDS)], model) == (WORDS, cluster.model)


async def test_a_request_without_a_node_until_its_deadline_gets_that_reason(cluster: LocalCluster) -> None:
    await cluster.node()
    dispatcher = await cluster.dispatcher()
    async with gateway(cluster) as running:
        await away(cluster, running)
        status, body = await ask(running, cluster.model, within_s=0.3)
        assert (status, body["error"]["code"]) == (503, "no_node")
        assert cluster.model in body["error"]["message"]
        assert re.search(r"within 0\.\d+ s", body["error"]["message"])
        await back(cluster)
        assert answered(await ask(running, cluster.model))[0] == WORDS
        await cluster.settled(dispatcher)


async def test_a_model_that_left_too_long_ago_is_refused_at_once(cluster: LocalCluster) -> None:
    await cluster.node()
    async with gateway(cluster, wait_for_node_s=0) as running:
        await away(cluster, running)
        status, body = await ask(running, cluster.model)
        assert (status, body["error"]["code"]) == (503, "no_node")
        assert "orchestra node" in body["error"]["message"]
        assert await cluster.queued() == 0
