"""A client cannot have NATS servers report the messages of its request to a subject that it names."""

from __future__ import annotations

import json
from collections.abc import Iterator
from secrets import token_hex

import aiohttp
import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.bus import Bus, BusSettings, Message
from actors.bus.message_traces import DESTINATION
from actors.bus.subjects import CHAT_SUBJECT
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually

HOSTILE = "spy.on.others"
BODY = {"model": "orchestra/single", "messages": [{"role": "user", "content": "one two"}]}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """Runs go through a queue at the NATS server."""
    with running_cluster([("fast", EchoBackend(EchoSettings()))], agents=True) as running:
        yield running


def hostile_headers() -> dict[str, str]:
    return {DESTINATION: HOSTILE, "traceparent": f"00-{token_hex(16)}-{token_hex(8)}-01"}


async def reported(bus: Bus) -> list[str]:
    """The subjects of messages that servers have told of at the hostile subject, once all is told."""
    found: list[str] = []

    def on_record(message: Message) -> None:
        found.append(json.loads(message.data)["events"][0]["subj"])

    await bus.subscribe(HOSTILE, on_record)
    await bus.flush()
    return found


async def test_a_header_of_an_http_request_reaches_no_nats_server(cluster: Cluster) -> None:
    bus = await Bus.connect(BusSettings(url=cluster.nats.url), name="spy")
    found = await reported(bus)
    async with aiohttp.ClientSession() as session:
        url = f"{cluster.base_url}/chat/completions"
        async with session.post(url, json=BODY, headers=hostile_headers()) as response:
            assert response.status == 200, await response.text()
    await bus.publish("own.message", headers=hostile_headers())
    await eventually(lambda: "own.message" in found)
    assert found == ["own.message"]
    await bus.close()


async def test_the_header_of_a_nats_client_concerns_its_own_message_only(cluster: Cluster) -> None:
    bus = await Bus.connect(BusSettings(url=cluster.nats.url), name="spy")
    found = await reported(bus)
    answer = await bus.request(CHAT_SUBJECT, json.dumps(BODY).encode(), headers=hostile_headers(), timeout=30)
    assert json.loads(answer.data)["choices"]
    await bus.publish("own.message", headers=hostile_headers())
    await eventually(lambda: "own.message" in found)
    assert found == [CHAT_SUBJECT, "own.message"]
    await bus.close()
