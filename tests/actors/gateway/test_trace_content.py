"""Prompts, keys and URLs are in no span and no log record, however a request ends, unless content is
switched on."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr

from actors.backends.echo import EchoBackend, EchoSettings
from actors.backends.openai import OpenAIBackend, OpenAISettings
from actors.gateway.admission_settings import CallerSettings
from actors.gateway.settings import GatewaySettings
from actors.telemetry.event_log import event_log
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually
from tests.fixtures.receiver import Receiver, attributes, receiver
from tests.fixtures.upstream import Request, faulty_upstream, response

CHAT = "/v1/chat/completions"
PROMPT, KEY, UPSTREAM_KEY, UPSTREAM_PATH, ANSWER = (
    f"canary-{what}-7f3a" for what in ("prompt", "key", "upstream-key", "url", "answer")
)
CANARIES = (PROMPT, KEY, UPSTREAM_KEY, UPSTREAM_PATH, ANSWER)
AUTHORIZED = {"Authorization": f"Bearer {KEY}"}
FILE = f"sk-{'a1B2' * 8}"
"""A key as it may stand in a prompt."""


async def leaky(request: Request) -> AsyncIterator[bytes]:
    """Answers every request with an error that repeats all that it must not."""
    status = 400 if request.body and "refuse" in str(request.body) else 500
    yield response(status, {"error": {"message": " ".join(CANARIES), "code": "x"}})


@pytest.fixture(scope="module")
def upstream_port() -> Iterator[int]:
    """An upstream in a thread of its own: the cluster outlives the loop of a test."""
    ports: list[int] = []
    ready, loop, stop = threading.Event(), asyncio.new_event_loop(), asyncio.Event()

    async def serve() -> None:
        async with faulty_upstream(leaky) as upstream:
            ports.append(upstream.port)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(10)
    yield ports[0]
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    loop.close()


@pytest.fixture(scope="module")
def cluster(upstream_port: int) -> Iterator[Cluster]:
    os.environ["CANARY_KEY"] = UPSTREAM_KEY
    settings = OpenAISettings.model_validate(
        {
            "base_url": f"http://127.0.0.1:{upstream_port}/{UPSTREAM_PATH}/v1",
            "api_key_env": "CANARY_KEY",
            "models": {"upstream": "faulty"},
        }
    )
    nodes = [
        ("node", EchoBackend(EchoSettings(models=("echo",), repeat=False))),
        ("slow", EchoBackend(EchoSettings(models=("slow",), speed=20))),
        ("upstream", OpenAIBackend(settings)),
    ]
    gateway = GatewaySettings(http="127.0.0.1:0", callers={"ann": CallerSettings(key=SecretStr(KEY))})
    with running_cluster(nodes, gateway=gateway, agents=True) as running:
        yield running
    del os.environ["CANARY_KEY"]


@pytest.fixture
async def told() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        yield made


async def ask(cluster: Cluster, body: dict[str, Any], **headers: str) -> int:
    async with aiohttp.ClientSession(cluster.url) as session:
        async with session.post(CHAT, json=body, headers=AUTHORIZED | headers) as answer:
            await answer.read()
            return answer.status


def messages(text: str = "") -> list[dict[str, str]]:
    return [{"role": "user", "content": f"{PROMPT} {text}"}]


async def leave(cluster: Cluster, body: dict[str, Any]) -> None:
    async with aiohttp.ClientSession(cluster.url) as session:
        asking = asyncio.create_task(session.post(CHAT, json=body, headers=AUTHORIZED))
        await eventually(lambda: cluster.running_on("slow") > 0)
        asking.cancel()


async def test_no_canary_is_in_a_span_or_a_log_record(cluster: Cluster, told: Receiver) -> None:
    telemetry = told.trace()
    event_log.add_sink(telemetry.logs.record)
    try:
        for pattern in ("", "orchestra/single", "orchestra/maestro"):
            for model in ("echo", "upstream"):
                body: dict[str, Any] = {"model": pattern or model, "messages": messages(), "user": "u"}
                if pattern:
                    body["orchestra"] = {"model": model}
                for stream in (False, True):
                    status = await ask(cluster, body | {"stream": stream})
                    assert (status == 200) == (model == "echo") or stream
        refused = await ask(cluster, {"model": "upstream", "messages": messages("refuse")})
        assert refused == 400
        late = {"model": "slow", "messages": messages(), "max_tokens": 2000}
        assert await ask(cluster, late, **{"X-Request-Timeout": "0.3"}) == 504
        await leave(cluster, late)
        tool = {"name": PROMPT, "parameters": {"type": "object", "description": PROMPT}}
        await ask(
            cluster,
            {"model": "echo", "messages": messages(), "tools": [{"type": "function", "function": tool}]},
        )
        assert await ask(cluster, {"model": "echo", "messages": PROMPT}) >= 400
        async with aiohttp.ClientSession(cluster.url) as session:
            await session.post(f"{CHAT}?key={KEY}", json={}, headers={"Authorization": f"Bearer {KEY}x"})
        await eventually(lambda: cluster.running_on("slow") == 0)
        await told.flush()
        await eventually(lambda: len([span for span in told.spans if not span.parent_span_id]) >= 15)
        await eventually(lambda: told.logs)
    finally:
        event_log.remove_sink(telemetry.logs.record)
    exported = [each.SerializeToString() for each in told.spans]
    exported += [each.SerializeToString() for each in told.logs]
    for data in exported:
        assert not [canary for canary in CANARIES if canary.encode() in data], data


async def test_content_is_recorded_when_switched_on_without_its_secrets_and_up_to_a_limit(
    cluster: Cluster, told: Receiver
) -> None:
    told.trace(content=True, content_characters=300)
    text = f"my key is {FILE}, password: hunter2hunter2, at https://me:pass1234@host/x " + "word " * 500
    assert await ask(cluster, {"model": "echo", "messages": messages(text), "max_tokens": 20}) == 200

    async def call() -> dict[str, Any] | None:
        await told.flush()
        return next((attributes(span) for span in told.spans if span.name == "chat echo"), None)

    found = await eventually(call)
    for name in ("gen_ai.input.messages", "gen_ai.output.messages"):
        content = found[name]
        assert PROMPT in content
        assert "[redacted]" in content
        assert len(content) <= 301
        for secret in (FILE, "hunter2hunter2", "pass1234"):
            assert secret not in content
    assert not [span for span in told.spans if KEY.encode() in span.SerializeToString()]
