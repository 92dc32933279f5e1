"""The agents by the Synadia Agent Protocol, driven by its public client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager

import nats as nats_py
import pytest
from nats.aio.client import Client
from synadia_ai.agents import (
    Agent,
    Agents,
    Attachment,
    AttachmentsNotSupportedError,
    Envelope,
    ProtocolError,
    ResponseChunk,
    StatusChunk,
)

from actors.agents.settings import AgentsSettings
from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.subjects import AgentAddress
from tests.actors.agents.clusters import Cluster, cluster
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats

NAMES = {"coordinator", "research", "reasoning", "creative", "code", "critic"}


@asynccontextmanager
async def agents_of(url: str) -> AsyncIterator[tuple[Client, dict[str, Agent]]]:
    """The public client, and what it discovers by name."""
    connection = await nats_py.connect(url)
    agents = Agents(nc=connection)
    try:
        found = await agents.discover()
        yield connection, {agent.session_name: agent for agent in found}
    finally:
        await agents.close()
        await connection.close()


@asynccontextmanager
async def echo_cluster(
    nats: RunningNats, settings: AgentsSettings | None = None, **echo: object
) -> AsyncIterator[Cluster]:
    backend = EchoBackend(EchoSettings.model_validate({"repeat": False} | echo))
    async with cluster(nats.url, backend, settings) as running:
        yield running


async def test_the_public_client_discovers_all_six_agents(nats: RunningNats) -> None:
    async with echo_cluster(nats), agents_of(nats.url) as (_, found):
        assert set(found) == NAMES
        for name, agent in found.items():
            assert (agent.agent, agent.owner, agent.protocol_version) == ("orchestra", "local", "0.3")
            assert agent.prompt_subject == f"agents.prompt.orchestra.local.{name}"
            assert agent.prompt_endpoint.attachments_ok is False
            assert agent.prompt_endpoint.max_payload_bytes
            assert agent.description


async def test_a_prompt_is_acknowledged_first_then_streamed_and_closed(nats: RunningNats) -> None:
    async with echo_cluster(nats, speed=200.0), agents_of(nats.url) as (_, found):
        said = [item async for item in found["research"].prompt("one two three four five six seven eight")]
        assert isinstance(said[0], StatusChunk)
        assert said[0].status == "ack"
        chunks = [item for item in said[1:] if isinstance(item, ResponseChunk)]
        assert len(chunks) > 1
        assert "".join(chunk.text for chunk in chunks) == "one two three four five six seven eight"


async def test_the_acknowledgement_does_not_wait_for_the_answer(nats: RunningNats) -> None:
    settings = AgentsSettings(drain_timeout_s=0.1)
    async with echo_cluster(nats, settings, first_token_s=3600.0), agents_of(nats.url) as (_, found):
        async with asyncio.timeout(30), aclosing(found["code"].prompt("hello")) as said:  # type: ignore[type-var]
            assert isinstance(await anext(said), StatusChunk)


async def test_the_coordinator_answers_a_prompt_with_a_run(nats: RunningNats) -> None:
    async with echo_cluster(nats), agents_of(nats.url) as (connection, found):
        said = [item async for item in found["coordinator"].prompt("What is the capital of France?")]
        text = "".join(item.text for item in said if isinstance(item, ResponseChunk))
        assert text == "What is the capital of France?"
        raw = await exchange(connection, found["coordinator"].prompt_subject, b"What is it?")
        progress = [json.loads(data)["data"] for data in raw if b'"progress"' in data]
        assert progress[0].startswith("auto chose single")


async def exchange(connection: Client, subject: str, data: bytes) -> list[bytes]:
    """Every message of a reply stream up to the empty one, errors as their code and text."""
    inbox = connection.new_inbox()
    subscription = await connection.subscribe(inbox)
    await connection.publish(subject, data, reply=inbox)
    said: list[bytes] = []
    while True:
        message = await subscription.next_msg(timeout=30)
        if not message.data and not message.headers:
            await subscription.unsubscribe()
            return said
        code = (message.headers or {}).get("Nats-Service-Error-Code")
        said.append(f"error {code}".encode() if code else message.data)


async def test_plain_text_and_json_are_the_same_prompt(nats: RunningNats) -> None:
    async with echo_cluster(nats), agents_of(nats.url) as (connection, found):
        for body in (b"hello there", b'  {"prompt": "hello there", "later": {"x": 1}}'):
            said = await exchange(connection, found["critic"].prompt_subject, body)
            texts = [json.loads(data)["data"] for data in said if b'"response"' in data]
            assert "".join(texts) == "hello there"


NO_PROMPTS = (
    b"",
    b"  \n",
    b'{"prompt": ""}',
    b'{"prompt": 5}',
    b'{"text": "hello"}',
    b'{"prompt": "hel',
    b"\xff\xfe",
    b'{"prompt": "look", "attachments": [{"filename": "a.txt", "content": "aGk="}]}',
)


async def test_what_is_not_a_prompt_gets_400_and_the_end(nats: RunningNats) -> None:
    async with echo_cluster(nats), agents_of(nats.url) as (connection, found):
        for body in NO_PROMPTS:
            assert await exchange(connection, found["code"].prompt_subject, body) == [b"error 400"]


async def test_attachments_are_refused_by_the_client_and_by_the_agent(nats: RunningNats) -> None:
    attachment = Attachment.from_bytes("a.txt", b"hi")
    async with echo_cluster(nats), agents_of(nats.url) as (_, found):
        with pytest.raises(AttachmentsNotSupportedError):
            found["code"].prompt("look", attachments=[attachment])
        envelope = Envelope(prompt="look", attachments=[])
        said = [item async for item in found["code"].prompt(envelope)]
        assert any(isinstance(item, ResponseChunk) for item in said)


async def test_an_error_of_the_model_reaches_the_caller_as_a_service_error(nats: RunningNats) -> None:
    async with echo_cluster(nats, fail_every=1, fail_after=2), agents_of(nats.url) as (_, found):
        stream = found["code"].prompt("one two three")
        assert isinstance(await anext(stream), StatusChunk)
        first = await anext(stream)
        assert isinstance(first, ResponseChunk)
        assert first.text.startswith("one")
        with pytest.raises(ProtocolError, match="service error 502: echo fails"):
            _ = [item async for item in stream]


async def test_a_caller_that_leaves_stops_the_generation(nats: RunningNats) -> None:
    async with echo_cluster(nats, repeat=True, speed=50.0) as running:
        async with agents_of(nats.url) as (connection, found):
            inbox = connection.new_inbox()
            subscription = await connection.subscribe(inbox)
            await connection.publish(found["code"].prompt_subject, b"again " * 5_000, reply=inbox)
            while b"response" not in (await subscription.next_msg(timeout=30)).data:
                pass
            assert running.node.describe().running == 1
            await subscription.unsubscribe()
            await eventually(lambda: running.node.describe().running == 0)


async def test_status_and_heartbeats_show_the_instance_that_was_discovered(nats: RunningNats) -> None:
    settings = AgentsSettings(heartbeat_s=1, drain_timeout_s=5)
    async with echo_cluster(nats, settings), agents_of(nats.url) as (connection, found):
        status = await found["critic"].status()
        assert status.instance_id == found["critic"].instance_id
        assert (status.agent, status.owner, status.session) == ("orchestra", "local", "critic")
        assert status.interval_s == 1
        subscription = await connection.subscribe(AgentAddress("local", "critic").heartbeat)
        beat = json.loads((await subscription.next_msg(timeout=30)).data)
        assert beat["instance_id"] == found["critic"].instance_id
        assert beat["ts"].endswith("Z")


async def test_agents_are_gone_from_discovery_after_a_drain(nats: RunningNats) -> None:
    async with echo_cluster(nats):
        pass
    async with agents_of(nats.url) as (_, found):
        assert found == {}
