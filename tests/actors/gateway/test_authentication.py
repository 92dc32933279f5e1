"""Who asks, and how much each may ask, over HTTP and over NATS."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from prometheus_client import REGISTRY
from pydantic import ValidationError

from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.bus import Bus, BusSettings, Message
from actors.gateway.admission_settings import CallerLimits, CallerSettings, LimitsSettings
from actors.gateway.authentication import ANONYMOUS, Authenticator
from actors.gateway.errors import InvalidApiKey
from actors.gateway.settings import GatewaySettings
from actors.runtime.envelope import CALLER
from actors.settings import leaves, load
from orchestration.errors import InvalidRequest
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.estimates import without_template
from tests.fixtures.eventually import eventually

CHAT = "/v1/chat/completions"
SETTINGS = GatewaySettings(
    http="127.0.0.1:0",
    limits=LimitsSettings(per_caller=CallerLimits(requests_in_flight=3, queue_depth=2)),
    callers={
        "alice": CallerSettings(key="key-of-alice"),
        "bob": CallerSettings(key="key-of-bob", requests_in_flight=1),
        "saver": CallerSettings(key="key-of-saver", tokens_per_minute=100),
        "thrifty": CallerSettings(key="key-of-thrifty", tokens_per_minute=50),
    },
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """`echo`; `late` begins its answers after a minute; `slow` says 20 words a second."""
    backends = [
        ("fast", EchoBackend(EchoSettings(models=("echo",)))),
        ("late", EchoBackend(EchoSettings(models=("late",), first_token_s=60))),
        ("slow", EchoBackend(EchoSettings(models=("slow",), speed=20))),
    ]
    with running_cluster(backends, gateway=SETTINGS) as running:
        yield running


@pytest.fixture
async def http(cluster: Cluster) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cluster.url) as session:
        yield session
    await eventually(lambda: cluster.running.gateway.in_flight == 0)


def chat(model: str = "echo", text: str = "a b c", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]} | more


def bearer(name: str) -> dict[str, str]:
    return {"Authorization": f"Bearer key-of-{name}"}


async def status(http: aiohttp.ClientSession, body: dict[str, Any], headers: dict[str, str]) -> int:
    async with http.post(CHAT, json=body, headers=headers) as answer:
        await answer.read()
        return answer.status


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer key-of-nobody"},
        {"Authorization": "Basic key-of-alice"},
        {"Authorization": "key-of-alice"},
        {"Authorization": "Bearer key-of-alic\xe9"},
    ],
)
async def test_without_a_known_key_nothing_is_answered(
    http: aiohttp.ClientSession, headers: dict[str, str]
) -> None:
    async with http.post(CHAT, json=chat(), headers=headers) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["code"]) == (401, "invalid_api_key")
    assert answer.headers["WWW-Authenticate"] == "Bearer"
    assert "key-of" not in error["message"]


async def test_a_known_key_is_answered_and_pages_that_only_read_need_none(
    http: aiohttp.ClientSession,
) -> None:
    assert await status(http, chat(), bearer("alice")) == 200
    assert await status(http, chat(), {"Authorization": "bearer  key-of-alice "}) == 200
    for page in ("/", "/v1/models", "/v1/models/echo", "/healthz", "/readyz", "/metrics"):
        async with http.get(page) as answer:
            assert answer.status == 200
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/jobs"):
        async with http.post(path, json=chat()) as answer:
            assert answer.status == 401, path
    async with http.get("/v1/jobs") as answer:
        assert answer.status == 401


async def test_a_wrong_key_is_refused_where_models_are_listed_too(http: aiohttp.ClientSession) -> None:
    for page in ("/v1/models", "/v1/models/echo"):
        for key, wanted in (("key-of-alice", 200), ("wrong", 401)):
            async with http.get(page, headers={"Authorization": f"Bearer {key}"}) as answer:
                assert answer.status == wanted, page
    async with http.get("/healthz", headers={"Authorization": "Bearer wrong"}) as answer:
        assert answer.status == 200


async def test_the_same_idempotency_key_of_two_callers_is_two_jobs(http: aiohttp.ClientSession) -> None:
    jobs = []
    for name in ("alice", "bob", "alice"):
        headers = bearer(name) | {"Idempotency-Key": "monday"}
        async with http.post("/v1/jobs", json=chat(), headers=headers) as answer:
            jobs.append((answer.status, (await answer.json())["id"]))
    assert [status for status, _ in jobs] == [202, 202, 200]
    assert jobs[0][1] == jobs[2][1] != jobs[1][1]


async def test_a_caller_at_its_limit_is_refused_at_once_and_others_are_not(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    endless = chat("slow", stream=True, max_tokens=2000)
    async with http.post(CHAT, json=endless, headers=bearer("bob")) as stream:
        assert (await stream.content.readline()).startswith(b"data: ")
        async with http.post(CHAT, json=chat(), headers=bearer("bob")) as answer:
            error = (await answer.json())["error"]
        assert (answer.status, answer.headers["Retry-After"]) == (429, "1")
        assert error["type"] == "rate_limit_error"
        assert (
            error["message"]
            == "limit reached: 1 of 1 requests in flight of caller 'bob' (requests_in_flight)"
        )
        assert await status(http, chat(), bearer("alice")) == 200
        stream.close()
    await eventually(lambda: cluster.running.gateway.in_flight == 0)
    assert await status(http, chat(), bearer("bob")) == 200


async def test_the_queue_depth_counts_answers_that_have_not_begun(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    waiting = [asyncio.create_task(status(http, chat("late"), bearer("alice"))) for _ in range(2)]
    await eventually(lambda: cluster.running_on("late") == 2)
    async with http.post(CHAT, json=chat(), headers=bearer("alice")) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, "queue_depth" in error["message"]) == (429, True)
    waiting.pop().cancel()
    await eventually(lambda: cluster.running_on("late") == 1)
    endless = chat("slow", stream=True, max_tokens=2000)
    async with http.post(CHAT, json=endless, headers=bearer("alice")) as stream:
        assert (await stream.content.readline()).startswith(b"data: ")
        assert cluster.running.gateway.limits.waiting == 1
        stream.close()
    waiting.pop().cancel()
    await eventually(lambda: cluster.running_on("late") == 0)


async def test_tokens_are_reserved_before_and_settled_after_so_that_many_at_once_overdraw_nothing(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    limits = cluster.running.gateway.limits
    without_template(cluster.running.gateway, "slow")
    body = chat("slow", "one two three four", max_tokens=40)

    async with http.post(CHAT, json=body | {"stream": True}, headers=bearer("saver")) as stream:
        assert (await stream.content.readline()).startswith(b"data: ")
        reserved = 100 - limits.tokens_left("saver", 0)
        assert reserved > 40, "what it may take, and the prompt"
        refused = await asyncio.gather(*(status(http, body, bearer("saver")) for _ in range(8)))
        assert refused.count(429) == 7, "one more has room beside it"
        stream.close()
    async with http.post(CHAT, json=chat(max_tokens=95), headers=bearer("saver")) as answer:
        error = (await answer.json())["error"]
    assert answer.status == 429
    assert "of 100 tokens per minute of caller 'saver'" in error["message"]
    assert 0 < int(answer.headers["Retry-After"]) <= 60
    assert limits.tokens_left("saver", 0) < 100 - 40


async def test_a_cached_response_uses_no_tokens_and_a_refusal_is_counted(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    limits = cluster.running.gateway.limits
    body = chat(text="one two three", max_tokens=30, temperature=0)
    assert await status(http, body, bearer("thrifty")) == 200
    spent = 50 - limits.tokens_left("thrifty", 0)
    assert spent > 30
    for _ in range(20):
        assert await status(http, body, bearer("thrifty")) == 200
    assert limits.tokens_left("thrifty", 0) >= 50 - spent - 1e-6
    before = refusals()
    for temperature in (0, 1):
        large = chat(text="another", max_tokens=44, temperature=temperature)
        assert await status(http, large, bearer("thrifty")) == 429
    assert refusals() == before + 2


def refusals() -> float:
    return REGISTRY.get_sample_value("orchestra_gateway_refused_total", {"limit": "tokens_per_minute"}) or 0


async def test_a_request_that_can_never_fit_is_refused_with_the_way_out(http: aiohttp.ClientSession) -> None:
    async with http.post(CHAT, json=chat(max_tokens=101), headers=bearer("saver")) as answer:
        error = (await answer.json())["error"]
    assert (answer.status, error["code"], error["param"]) == (400, "too_many_tokens", "max_tokens")


async def test_over_nats_the_header_names_the_caller(cluster: Cluster) -> None:
    bus = await Bus.connect(BusSettings(url=cluster.nats.url), name="caller")

    async def code(name: str, body: dict[str, Any]) -> str:
        headers = {CALLER: name} if name else {}
        answer = await bus.request("orchestra.chat", json.dumps(body).encode(), headers=headers)
        code = answer.header("Nats-Service-Error-Code", "200")
        assert answer.header("Retry-After") == ("1" if code == "429" else "")
        return code

    chunks: list[Message] = []
    inbox = bus.expect(chunks.append)
    endless = json.dumps(chat("slow", stream=True, max_tokens=2000)).encode()
    try:
        await bus.publish("orchestra.chat", endless, reply=inbox, headers={CALLER: "bob"})
        await eventually(lambda: chunks)
        assert await code("bob", chat()) == "429"
        assert await code("somebody", chat()) == "200"
        assert await code("", chat()) == "200"
        assert await code("no name", chat()) == "400"
        bus.forget(inbox)
        await bus.publish("orchestra.chat.cancel", json.loads(chunks[0].data)["id"].encode())
        await eventually(lambda: cluster.running.gateway.in_flight == 0)
    finally:
        await bus.close()


def test_a_key_is_compared_as_the_bytes_that_were_sent() -> None:
    callers = Authenticator({"a": CallerSettings(key="schlüssel-ключ")})
    assert callers.of_http("Bearer " + "schlüssel-ключ".encode().decode("latin-1")) == "a"


def test_without_keys_in_the_settings_everybody_is_anonymous() -> None:
    callers = Authenticator({})
    assert callers.of_http("") == callers.of_http("Bearer anything") == ANONYMOUS
    assert callers.of_nats("") == ANONYMOUS
    assert callers.of_nats("me@home") == "me@home"


def test_keys_are_shown_nowhere(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "orchestra.toml"
    file.write_text(
        "[gateway.limits.per_caller]\ntokens_per_minute = 7\n"
        '[gateway.callers.alice]\nkey = "key-of-alice"\nrequests_in_flight = 2\n'
    )
    monkeypatch.setenv("ORCHESTRA_GATEWAY__CALLERS__BOB__KEY", "key-of-bob")
    settings, _ = load(file=file)
    shown = leaves(settings)
    assert shown["gateway.callers.alice.key"] == shown["gateway.callers.bob.key"] == "********"
    assert shown["gateway.callers.alice.requests_in_flight"] == 2
    callers = Authenticator(settings.gateway.callers)
    assert callers.of_http("Bearer key-of-bob") == "bob"
    for text in (repr(settings), repr(callers), json.dumps(shown, default=str), str(vars(callers))):
        assert "key-of" not in text
    limit = settings.gateway.callers["alice"].over(settings.gateway.limits.per_caller).limit()
    assert (limit.requests_in_flight, limit.tokens_per_minute) == (2, 7)


def test_two_callers_with_one_key_and_names_that_are_none_are_refused() -> None:
    one = {"key": "key-of-somebody"}
    with pytest.raises(ValidationError, match="two callers have the same key"):
        GatewaySettings.model_validate({"callers": {"a": one, "b": one}})
    with pytest.raises(ValidationError, match="'a b' is not a name of 1 to 64 letters"):
        GatewaySettings.model_validate({"callers": {"a b": one}})
    with pytest.raises(InvalidApiKey):
        Authenticator({"a": CallerSettings(key="key-of-somebody")}).of_http("Bearer ")
    with pytest.raises(InvalidRequest, match="Orchestra-Caller"):
        Authenticator({}).of_nats("a" * 65)
