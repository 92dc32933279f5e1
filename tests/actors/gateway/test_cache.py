"""Answers that are kept, and generations that several requests share, as their callers see them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
from prometheus_client import REGISTRY

from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.bus import Bus, BusSettings
from actors.bus.key_value import Bucket
from actors.gateway.admission_settings import CacheSettings, CallerSettings
from actors.gateway.process import RunningGateway, run_gateway
from actors.gateway.response_cache import BUCKET
from actors.gateway.settings import GatewaySettings
from actors.runtime.system import ActorSystem
from tests.fixtures.cluster import ANY_PORT, Cluster, running_cluster
from tests.fixtures.eventually import eventually

CHAT, EMBEDDINGS = "/v1/chat/completions", "/v1/embeddings"
CALLERS = {
    "alice": CallerSettings(key="key-of-alice", namespace="team"),
    "bob": CallerSettings(key="key-of-bob", namespace="team"),
    "carol": CallerSettings(key="key-of-carol"),
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """`echo` at full speed and with embeddings, `slow` at 20 words a second, `flaky` always fails."""
    backends = [
        ("fast", EchoBackend(EchoSettings(models=("echo",), embedding_models=("vectors",)))),
        ("slow", EchoBackend(EchoSettings(models=("slow",), speed=20))),
        ("flaky", EchoBackend(EchoSettings(models=("flaky",), fail_every=1, fail_after=1))),
    ]
    with running_cluster(backends) as running:
        yield running


@pytest.fixture
async def http(cluster: Cluster) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cluster.url) as session:
        yield session


def chat(model: str = "echo", text: str = "", **more: Any) -> dict[str, Any]:
    """A deterministic chat that nobody asked before, unless `text` is given."""
    content = text or f"{uuid4().hex} b c"
    return {"model": model, "temperature": 0, "messages": [{"role": "user", "content": content}]} | more


async def ask(
    http: aiohttp.ClientSession, body: dict[str, Any], path: str = CHAT, key: str = ""
) -> tuple[str, Any]:
    """`X-Orchestra-Cache`, and the answer: its JSON, or the text of a stream and its last chunk."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    async with http.post(path, json=body, headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        cache = answer.headers.get("X-Orchestra-Cache", "")
        if not body.get("stream"):
            return cache, await answer.json()
        chunks = [json.loads(line[6:]) async for line in answer.content if line.startswith(b"data: {")]
        return cache, (
            "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks),
            chunks[-1],
        )


def generations(cluster: Cluster, node: str) -> int:
    """How many a node was ever asked for."""
    backend = cluster.nodes[node].backend
    assert isinstance(backend, EchoBackend)
    return backend._count


async def test_the_second_answer_comes_from_the_cache_and_says_so(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    body, before = chat(), generations(cluster, "fast")
    hits = REGISTRY.get_sample_value("orchestra_gateway_cache_total", {"result": "hit"}) or 0
    first, made = await ask(http, body)
    second, kept = await ask(http, body)
    assert (first, made["orchestra"]["cache"]) == ("miss", "miss")
    assert (second, kept["orchestra"]["cache"]) == ("hit", "hit")
    assert generations(cluster, "fast") == before + 1
    assert REGISTRY.get_sample_value("orchestra_gateway_cache_total", {"result": "hit"}) == hits + 1
    assert kept["id"] != made["id"]
    for field in ("choices", "usage", "model"):
        assert kept[field] == made[field]
    assert kept["orchestra"]["node"] == "fast"


@pytest.mark.parametrize("streamed_first", [True, False])
async def test_a_cached_response_can_be_streamed_and_a_streamed_one_is_cached(
    cluster: Cluster, http: aiohttp.ClientSession, streamed_first: bool
) -> None:
    text = f"{uuid4().hex} b c d"
    whole, stream = chat(text=text), chat(text=text, stream=True)
    first, second = (stream, whole) if streamed_first else (whole, stream)
    await ask(http, first)
    cache, answer = await ask(http, second)
    assert cache == "hit"
    if streamed_first:
        assert answer["choices"][0]["message"]["content"] == text
        assert answer["usage"]["completion_tokens"] == 4
    else:
        said, last = answer
        assert said == text
        assert last["choices"][0]["finish_reason"] == "stop"
        assert last["orchestra"]["cache"] == "hit"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({"temperature": 0.7}, ["", ""]),
        ({"temperature": None}, ["", ""]),
        ({"temperature": 0.7, "seed": 4}, ["miss", "hit"]),
        ({"temperature": 0.7, "cache": {"force": True}}, ["miss", "hit"]),
        ({"cache": {"no_store": True}}, ["", ""]),
        ({"cache": {"ttl": 0}}, ["", ""]),
        ({"cache": {"ttl": 60}}, ["miss", "hit"]),
        ({"cache": {"ttl": 0.000001}}, ["miss", "miss"]),
    ],
)
async def test_responses_are_cached_if_deterministic_or_if_the_request_forces_it(
    http: aiohttp.ClientSession, more: dict[str, Any], expected: list[str]
) -> None:
    body = chat(**more)
    said = [(await ask(http, body))[0] for _ in expected]
    assert said == expected


async def test_a_run_is_not_cached_unless_the_request_forces_it(cluster: Cluster) -> None:
    backends = [("fast", EchoBackend(EchoSettings(models=("echo",))))]
    with running_cluster(backends, agents=True) as own:
        async with aiohttp.ClientSession(own.url) as http:
            body = chat("orchestra/single", orchestra={"model": "echo"})
            assert [(await ask(http, body))[0] for _ in range(2)] == ["", ""]
            body["cache"] = {"force": True}
            assert (await ask(http, body))[0] == "miss"
            cache, answer = await ask(http, body)
    assert cache == "hit"
    assert len(answer["orchestra"]["steps"]) == 1


async def test_force_and_no_store_together_are_refused(http: aiohttp.ClientSession) -> None:
    async with http.post(CHAT, json=chat(cache={"force": True, "no_store": True})) as answer:
        error = (await answer.json())["error"]
    assert answer.status == 400
    assert "contradict" in error["message"]


async def test_embeddings_are_cached_for_every_encoding_format(http: aiohttp.ClientSession) -> None:
    body: dict[str, Any] = {"model": "vectors", "input": [uuid4().hex, "b"]}
    _, made = await ask(http, body, EMBEDDINGS)
    cache, kept = await ask(http, body, EMBEDDINGS)
    assert (cache, kept["orchestra"]["cache"]) == ("hit", "hit")
    assert (kept["data"], kept["usage"]) == (made["data"], made["usage"])
    cache, packed = await ask(http, body | {"encoding_format": "base64"}, EMBEDDINGS)
    assert cache == "hit"
    assert isinstance(packed["data"][1]["embedding"], str)


async def test_a_failed_response_is_not_cached(cluster: Cluster, http: aiohttp.ClientSession) -> None:
    body, before = chat("flaky"), generations(cluster, "flaky")
    for _ in range(2):
        async with http.post(CHAT, json=body) as answer:
            assert answer.status == 502, await answer.text()
    assert generations(cluster, "flaky") >= before + 2


async def test_many_who_ask_the_same_at_once_share_one_generation(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    text, before = f"{uuid4().hex} b c d e f g h", generations(cluster, "slow")
    bodies = [chat("slow", text, stream=number % 2 == 1) for number in range(20)]
    answers = await asyncio.gather(*(ask(http, body) for body in bodies))
    assert generations(cluster, "slow") == before + 1
    assert sorted(cache for cache, _ in answers) == ["miss"] + ["shared"] * 19
    for body, (_, answer) in zip(bodies, answers, strict=True):
        said = answer[0] if body.get("stream") else answer["choices"][0]["message"]["content"]
        assert said == text
    assert len(cluster.running.gateway.responses.coalescer) == 0
    assert cluster.running.gateway.responses.coalescer.size == 0


@asynccontextmanager
async def streaming(
    http: aiohttp.ClientSession, body: dict[str, Any]
) -> AsyncIterator[aiohttp.ClientResponse]:
    """A stream whose first word has been read."""
    async with http.post(CHAT, json=body) as answer:
        assert (await answer.content.readline()).startswith(b"data: {")
        yield answer


async def test_a_generation_goes_on_until_the_last_who_follows_it_leaves(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    body, before = chat("slow", stream=True, max_tokens=2000), generations(cluster, "slow")
    async with streaming(http, body) as first:
        async with streaming(http, body) as second:
            assert second.headers["X-Orchestra-Cache"] == "shared"
            first.close()
            await eventually(lambda: cluster.running.gateway.in_flight == 1)
            for _ in range(6):
                assert await second.content.readline()
            assert cluster.running_on("slow") == 1
            second.close()
    await eventually(lambda: cluster.running_on("slow") == 0)
    await eventually(lambda: len(cluster.running.gateway.responses.coalescer) == 0)
    assert generations(cluster, "slow") == before + 1
    async with streaming(http, body) as third:
        assert third.headers["X-Orchestra-Cache"] == "miss"


async def test_each_who_follows_keeps_a_deadline_of_its_own(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    text = " ".join([uuid4().hex, *"bcdefghijklmnopqrstuvw"])
    body = chat("slow", text)

    async def hasty() -> int:
        async with http.post(CHAT, json=body, headers={"X-Request-Timeout": "0.3"}) as answer:
            assert (await answer.json())["error"]["code"] == "deadline_exceeded"
            return answer.status

    status, (cache, answer) = await asyncio.gather(hasty(), ask(http, body))
    assert status == 504
    assert cache in ("miss", "shared")
    assert answer["choices"][0]["message"]["content"] == text


async def test_a_batch_request_in_the_queue_does_not_hold_up_an_interactive_one(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    text = f"{uuid4().hex} b c d e f"
    batch = chat("slow", text, orchestra={"priority": "batch"})
    answers = await asyncio.gather(ask(http, batch), ask(http, chat("slow", text)))
    assert [cache for cache, _ in answers] == ["miss", "miss"]


@asynccontextmanager
async def another_gateway(cluster: Cluster, **settings: Any) -> AsyncIterator[RunningGateway]:
    """A second one, in this loop and on a connection of its own."""
    bus = await Bus.connect(BusSettings(url=cluster.nats.url), name="second")
    try:
        chosen = GatewaySettings.model_validate(ANY_PORT.model_dump() | settings)
        async with run_gateway(bus, chosen, ActorSystem()) as running:
            await eventually(lambda: len(running.gateway.registry.nodes) == 3)
            yield running
    finally:
        await bus.close()


async def test_an_answer_that_one_gateway_made_is_a_hit_at_another(
    cluster: Cluster, http: aiohttp.ClientSession, bus_of_cluster: Bus
) -> None:
    async with another_gateway(cluster) as second:
        body, before = chat(), generations(cluster, "fast")
        bucket = Bucket(bus_of_cluster, BUCKET)
        stored = await entries(bucket)
        _, made = await ask(http, body)

        async def is_stored() -> bool:
            return await entries(bucket) != stored

        await eventually(is_stored)
        async with aiohttp.ClientSession(second.url) as there:
            found, kept = await ask(there, body)
            assert (await ask(there, body))[0] == "hit"
            aged = body | {"cache": {"ttl": 0.000001}}
            assert (await ask(there, aged))[0] == "miss"
        assert (found, kept["choices"]) == ("hit", made["choices"])
        assert generations(cluster, "fast") == before + 2


async def test_nothing_is_cached_or_shared_with_the_cache_switched_off(cluster: Cluster) -> None:
    async with another_gateway(cluster, cache=CacheSettings(enabled=False)) as off:
        async with aiohttp.ClientSession(off.url) as there:
            body = chat()
            assert [(await ask(there, body))[0] for _ in range(2)] == ["", ""]


async def test_callers_share_answers_only_within_a_namespace(cluster: Cluster) -> None:
    async with another_gateway(cluster, callers=CALLERS) as keyed:
        async with aiohttp.ClientSession(keyed.url) as there:
            body = chat()
            said = [(await ask(there, body, key=f"key-of-{name}"))[0] for name in ("alice", "bob", "carol")]
    assert said == ["miss", "hit", "miss"]


async def test_the_cache_is_limited_and_a_long_response_is_not_cached(cluster: Cluster) -> None:
    small = CacheSettings(max_entries=2, max_answer_bytes=1024, shared=False)
    async with another_gateway(cluster, cache=small) as bounded:
        async with aiohttp.ClientSession(bounded.url) as there:
            bodies = [chat() for _ in range(3)]
            for body in bodies:
                await ask(there, body)
            assert len(bounded.gateway.responses.cache.cache) == 2
            assert [(await ask(there, body))[0] for body in (bodies[2], bodies[0])] == ["hit", "miss"]
            long = chat(text="word " * 300)
            assert [(await ask(there, long))[0] for _ in range(2)] == ["miss", "miss"]


@pytest.fixture
async def bus_of_cluster(cluster: Cluster) -> AsyncIterator[Bus]:
    bus = await Bus.connect(BusSettings(url=cluster.nats.url), name="looks")
    yield bus
    await bus.close()


async def entries(bucket: Bucket) -> int:
    """How many the bucket holds."""
    found: list[str] = []
    await bucket.replay(lambda value, subject: found.append(subject))
    return len(found)


async def test_a_cached_response_is_marked_over_nats_complete_and_streamed(
    cluster: Cluster, bus_of_cluster: Bus
) -> None:
    bus, text = bus_of_cluster, f"{uuid4().hex} b c"
    caches = []
    for _ in range(2):
        answer = await bus.request("orchestra.chat", json.dumps(chat(text=text)).encode())
        caches.append(json.loads(answer.data)["orchestra"]["cache"])
    assert caches == ["miss", "hit"]
    messages: list[bytes] = []
    inbox = bus.expect(lambda message: messages.append(message.data))
    await bus.publish("orchestra.chat", json.dumps(chat(text=text, stream=True)).encode(), reply=inbox)
    await eventually(lambda: messages and messages[-1] == b"")
    bus.forget(inbox)
    first, last = json.loads(messages[0]), json.loads(messages[-2])
    assert first["choices"][0]["delta"]["content"] == text
    assert last["orchestra"]["cache"] == "hit"


async def test_the_followers_of_a_generation_that_outlasts_the_drain_get_the_reason() -> None:
    stuck = EchoBackend(EchoSettings(models=("stuck",), stall_after=1))
    hasty = ANY_PORT.model_copy(update={"drain_s": 0.2})
    with running_cluster([("stuck", stuck)], gateway=hasty) as own:
        async with aiohttp.ClientSession(own.url) as http:
            body = chat("stuck", stream=True)
            async with streaming(http, body) as first, streaming(http, body) as second:
                own.stop_gateway()
                for answer in (first, second):
                    lines = [line async for line in answer.content if line.startswith(b"data: ")]
                    assert json.loads(lines[-1][6:])["error"]["message"] == "shutting down"
        await eventually(lambda: own.running_on("stuck") == 0)
