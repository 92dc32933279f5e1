"""NATS goes in the middle of an answer, and comes back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import aiohttp
import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from tests.fixtures.cluster import Cluster, running_cluster

CHAT = "/v1/chat/completions"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with running_cluster([("slow", EchoBackend(EchoSettings(models=("slow",), speed=20)))]) as running:
        yield running


async def test_answers_in_flight_end_with_an_error_and_the_gateway_recovers(cluster: Cluster) -> None:
    body = {"model": "slow", "messages": [{"role": "user", "content": "a b"}]}
    endless = body | {"max_tokens": 2000}
    async with aiohttp.ClientSession(cluster.url) as session:
        waiting = asyncio.ensure_future(session.post(CHAT, json=endless))
        async with session.post(CHAT, json=endless | {"stream": True}) as answer:
            assert (await answer.content.readline()).startswith(b"data: ")
            cluster.nats.kill()
            lines = [line async for line in answer.content if line.startswith(b"data: ")]
        assert json.loads(lines[-1][6:])["error"]["code"] == "bus_unavailable"
        async with await waiting as answer:
            assert answer.status == 503
            assert (await answer.json())["error"]["code"] == "bus_unavailable"
        async with session.post(CHAT, json=body) as answer:
            assert answer.status == 503
        async with session.get("/readyz") as answer:
            assert answer.status == 503
            assert "is not reachable" in (await answer.json())["missing"][0]
        cluster.nats.restart()
        async with asyncio.timeout(30):
            status = 0
            while status != 200:
                async with session.post(CHAT, json=body) as answer:
                    status = answer.status
                    text = await answer.text()
        assert json.loads(text)["choices"][0]["message"]["content"] == "a b"
