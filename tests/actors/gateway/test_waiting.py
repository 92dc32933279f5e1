"""Requests for models whose nodes are away wait for one to come back, until their deadline."""

from __future__ import annotations

import asyncio
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
from actors.runtime.system import ActorSystem
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats
from tests.fixtures.process import orchestra
from tests.fixtures.stage import SETTINGS, Stage
from tests.fixtures.stage import stage as set_up

WORDS = "say this when somebody is there"


@pytest.fixture
async def stage(own_nats: RunningNats) -> AsyncIterator[Stage]:
    async with set_up(own_nats.url) as stage:
        yield stage


@asynccontextmanager
async def gateway(
    stage: Stage, *, fallbacks: Fallbacks = NO_FALLBACKS, **settings: Any
) -> AsyncIterator[RunningGateway]:
    said = GatewaySettings(http="127.0.0.1:0", drain_s=1, **settings)
    async with run_gateway(stage.bus, said, ActorSystem(), fallbacks=fallbacks) as running:
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


async def away(stage: Stage, running: RunningGateway) -> None:
    """All nodes leave, which the gateway sees."""
    registry = running.gateway.registry
    await eventually(lambda: registry.nodes)
    for node in stage.nodes.values():
        await node.leave()
    await eventually(lambda: not registry.nodes)


async def back(stage: Stage) -> None:
    for node in stage.nodes.values():
        await node.join()


async def waits(asked: asyncio.Task[tuple[int, Any]], stage: Stage) -> None:
    """It is in the queue, and nobody refuses it."""
    async with asyncio.timeout(10):
        while not await stage.queued():  # noqa: ASYNC110 - asks the server
            await asyncio.sleep(0.01)
    assert not asked.done()


async def test_a_request_sent_while_no_node_lives_is_answered_once_one_is_back(stage: Stage) -> None:
    await stage.node()
    dispatcher = await stage.dispatcher()
    async with gateway(stage) as running:
        await away(stage, running)
        asked = [asyncio.ensure_future(ask(running, stage.model)) for _ in range(20)]
        await waits(asked[0], stage)
        await back(stage)
        assert [answered(reply) for reply in await asyncio.gather(*asked)] == [(WORDS, stage.model)] * 20
        await stage.settled(dispatcher)


async def test_a_gateway_and_a_dispatcher_that_never_saw_a_node_of_the_model_wait_for_one_too(
    stage: Stage, own_nats: RunningNats, tmp_path: Path
) -> None:
    words = ("node", "--backend", "echo", "--serve", stage.model, "--nats", own_nats.url)
    first = await stage.dispatcher(sees=0)
    with orchestra(*words, "--data", str(tmp_path)) as process:
        await asyncio.to_thread(process.wait_for, "serves")
        await eventually(lambda: len(first.snapshot().pulled_models) == 1)
    await eventually(lambda: not first.registry.nodes)
    async with gateway(stage) as running:
        await stage.dispatcher(sees=0)
        assert running.gateway.registry.nodes == {}
        asked = asyncio.ensure_future(ask(running, stage.model, within_s=60))
        await waits(asked, stage)
        status, body = await ask(running, "never-served")
        assert (status, body["error"]["code"]) == (503, "no_node")
        with orchestra(*words, "--data", str(tmp_path)):
            assert answered(await asked) == (WORDS, stage.model)


async def test_a_declared_fallback_answers_for_a_model_that_no_node_ever_served(stage: Stage) -> None:
    await stage.node()
    declared = {"large": ("not-served", stage.model)}
    dispatcher = await stage.dispatcher(SETTINGS.model_copy(update={"fallbacks": declared}))
    async with gateway(stage, fallbacks=declared) as running:
        await eventually(lambda: running.gateway.registry.nodes)
        assert answered(await ask(running, "large")) == (WORDS, stage.model)
        status, body = await ask(running, "huge")
        assert (status, body["error"]["code"]) == (404, "unknown_model")
        await stage.settled(dispatcher)


async def test_a_request_waits_for_its_fallback_too(stage: Stage) -> None:
    await stage.node()
    declared = {"large": (stage.model,)}
    dispatcher = await stage.dispatcher(SETTINGS.model_copy(update={"fallbacks": declared}))
    other = Stage(stage.bus, stage.streams, stage.stack, model="large")
    large = await other.node()
    async with gateway(stage, fallbacks=declared) as running:
        await eventually(lambda: len(running.gateway.registry.nodes) == 2)
        await large.leave()
        await away(stage, running)
        asked = asyncio.ensure_future(ask(running, "large"))
        await waits(asked, other)
        await back(stage)
        assert answered(await asked) == (WORDS, stage.model)
        await stage.settled(dispatcher)


async def test_a_pattern_waits_for_a_node_too(stage: Stage) -> None:
    await stage.node()
    await stage.dispatcher()
    async with (
        run_agents(stage.bus, AgentsSettings(drain_timeout_s=1), ActorSystem()),
        gateway(stage) as running,
    ):
        await away(stage, running)
        asked = asyncio.ensure_future(ask(running, "orchestra/single"))
        await eventually(lambda: running.gateway.streams.open_streams == 1)
        await back(stage)
        text, model = answered(await asked)
        assert (text[: len(WORDS)], model) == (WORDS, stage.model)


async def test_at_its_deadline_a_request_is_told_that_no_node_came(stage: Stage) -> None:
    await stage.node()
    dispatcher = await stage.dispatcher()
    async with gateway(stage) as running:
        await away(stage, running)
        status, body = await ask(running, stage.model, within_s=0.3)
        assert (status, body["error"]["code"]) == (503, "no_node")
        assert stage.model in body["error"]["message"]
        assert "0.3 s" in body["error"]["message"]
        await back(stage)
        assert answered(await ask(running, stage.model))[0] == WORDS
        await stage.settled(dispatcher)


async def test_a_model_that_left_too_long_ago_is_refused_at_once(stage: Stage) -> None:
    await stage.node()
    async with gateway(stage, wait_for_node_s=0) as running:
        await away(stage, running)
        status, body = await ask(running, stage.model)
        assert (status, body["error"]["code"]) == (503, "no_node")
        assert "orchestra node" in body["error"]["message"]
        assert await stage.queued() == 0
