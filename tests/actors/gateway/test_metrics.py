"""The numbers of a gateway agree with its answers to the token, add up at every scrape, and stay bounded."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.bus import Bus, BusSettings
from actors.bus.subjects import CHAT_SUBJECT
from actors.gateway.active_requests import STAGES
from actors.gateway.admission_settings import CallerLimits, LimitsSettings
from actors.gateway.settings import GatewaySettings
from actors.runtime.envelope import Envelope
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually
from tests.fixtures.process import Process, orchestra
from tests.fixtures.prometheus import complaints
from tests.fixtures.scrape import Scrape, scrape

CHAT, COMPLETION, EMBEDDING = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
ANSWERS, NODE_TOKENS = "orchestra_gateway_answers_total", "orchestra_node_tokens_total"
DIRECTIONS = ("prompt", "completion", "cached")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    echo = EchoSettings(models=("counted",), embedding_models=("counted-embed",))
    slow = EchoSettings(models=("counted-slow",), speed=100)
    flaky = EchoSettings(models=("counted-flaky",), fail_every=1, fail_after=2)
    backends = [(f"n-{each.models[0]}", EchoBackend(each)) for each in (echo, slow, flaky)]
    limits = LimitsSettings(per_caller=CallerLimits(tokens_per_minute=1_000_000))
    gateway = GatewaySettings(http="127.0.0.1:0", limits=limits)
    with running_cluster(backends, gateway=gateway, agents=True) as running:
        yield running


@pytest.fixture
async def http(cluster: Cluster) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        cluster.url, connector=aiohttp.TCPConnector(limit=0), headers={"Connection": "keep-alive"}
    ) as session:
        yield session


@pytest.fixture
async def nats(cluster: Cluster) -> AsyncIterator[Bus]:
    bus = await Bus.connect(BusSettings(url=cluster.nats.url), name="client")
    yield bus
    await bus.close()


def chat(model: str, words: str = "one two three four", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": words}]} | more


def tokens(scraped: Scrape, model: str, pattern: str = "none") -> tuple[float, ...]:
    name = "orchestra_gateway_tokens_total"
    return tuple(scraped.total(name, model=model, pattern=pattern, direction=each) for each in DIRECTIONS)


def used(usage: dict[str, Any]) -> tuple[int, ...]:
    cached = usage.get("prompt_tokens_details", {}).get("cached_tokens", 0)
    return usage["prompt_tokens"], usage.get("completion_tokens", 0), cached


def grew(before: Scrape, after: Scrape, name: str, **labels: str) -> float:
    return after.total(name, **labels) - before.total(name, **labels)


async def post(http: aiohttp.ClientSession, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Status and the last JSON object of the answer."""
    said: dict[str, Any]
    if body.get("stream"):
        body = body | {"stream_options": {"include_usage": True}}
    async with http.post(path, json=body) as answer:
        text = await answer.text()
    if body.get("stream") and answer.status == 200:
        lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
        text = lines[-1]
    said = json.loads(text)
    return answer.status, said


async def over_nats(bus: Bus, body: dict[str, Any], *, within_s: float = 60) -> dict[str, Any]:
    """The last JSON object of the answer."""
    said: dict[str, Any]
    headers = Envelope.within(within_s).headers()
    if not body.get("stream"):
        data = json.dumps(body).encode()
        said = json.loads((await bus.request(CHAT_SUBJECT, data, timeout=within_s, headers=headers)).data)
        return said
    body = body | {"stream_options": {"include_usage": True}}
    found: asyncio.Queue[bytes] = asyncio.Queue()
    reply = bus.expect(lambda message: found.put_nowait(message.data))
    await bus.publish(CHAT_SUBJECT, json.dumps(body).encode(), reply=reply, headers=headers)
    last = b""
    try:
        async with asyncio.timeout(within_s):
            while data := await found.get():
                last = data
    finally:
        bus.forget(reply)
    said = json.loads(last)
    return said


@pytest.mark.parametrize("stream", [False, True], ids=["full", "stream"])
@pytest.mark.parametrize(
    ("protocol", "route", "body", "model", "pattern"),
    [
        ("http", CHAT, chat("counted"), "counted", "none"),
        ("http", CHAT, chat("counted", n=3), "counted", "none"),
        ("http", COMPLETION, {"model": "counted", "prompt": ["a b c", "d e"], "n": 2}, "counted", "none"),
        ("http", CHAT, chat("orchestra/ensemble", orchestra={"model": "counted"}), "counted", "ensemble"),
        ("nats", CHAT_SUBJECT, chat("counted"), "counted", "none"),
        ("nats", CHAT_SUBJECT, chat("orchestra/debate", orchestra={"model": "counted"}), "counted", "debate"),
    ],
    ids=["chat", "choices", "completion", "pattern", "nats", "nats pattern"],
)
async def test_an_answer_is_counted_once_with_the_tokens_that_it_states(
    cluster: Cluster,
    http: aiohttp.ClientSession,
    nats: Bus,
    protocol: str,
    route: str,
    body: dict[str, Any],
    model: str,
    pattern: str,
    stream: bool,
) -> None:
    body = body | {"stream": stream, "cache": {"no_store": True}}
    before = await scrape(cluster.url)
    if protocol == "http":
        status, said = await post(http, route, body)
        assert status == 200
    else:
        said = await over_nats(nats, body)
    labels = {"model": model, "pattern": pattern, "stream": str(stream).lower(), "outcome": "ok"}
    ended = {"protocol": protocol, "route": route} | labels
    assert await grown(cluster, before, ANSWERS, **ended) == 1
    after = await scrape(cluster.url)
    assert grew(before, after, "orchestra_gateway_answer_seconds_count", **labels) == 1
    old, new = tokens(before, model, pattern), tokens(after, model, pattern)
    assert tuple(b - a for a, b in zip(old, new, strict=True)) == used(said["usage"])
    first = "orchestra_gateway_first_token_seconds_count"
    assert grew(before, after, first, model=model, pattern=pattern) == (1 if stream else 0)
    if pattern == "none":
        written = {"model": model, "direction": "completion"}
        assert grew(before, after, NODE_TOKENS, **written) == used(said["usage"])[1]
    else:
        run = "orchestra_run_tokens_total"
        spent = tuple(grew(before, after, run, pattern=pattern, direction=each) for each in DIRECTIONS)
        assert spent == used(said["usage"])


async def grown(cluster: Cluster, before: Scrape, name: str, **labels: str) -> float:
    """By how much the samples have grown, once they have."""

    async def more() -> float:
        return (await scrape(cluster.url)).total(name, **labels) - before.total(name, **labels)

    found: float = await eventually(more)
    return found


async def test_embeddings_and_answers_from_the_cache_are_counted_as_they_are_stated(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    before = await scrape(cluster.url)
    _, said = await post(http, EMBEDDING, {"model": "counted-embed", "input": ["a b", "c"]})
    again = chat("counted", "from the cache", temperature=0)
    answers = [(await post(http, CHAT, again))[1] for _ in range(2)]
    assert [each["orchestra"]["cache"] for each in answers] == ["miss", "hit"]
    await grown(cluster, before, ANSWERS, model="counted", outcome="ok")
    after = await scrape(cluster.url)
    embedded = tokens(after, "counted-embed")[0] - tokens(before, "counted-embed")[0]
    assert embedded == said["usage"]["prompt_tokens"]
    text = tokens(after, "counted")[1] - tokens(before, "counted")[1]
    assert text == sum(each["usage"]["completion_tokens"] for each in answers)
    assert grew(before, after, "orchestra_gateway_cache_total", result="hit") == 1


@pytest.mark.parametrize("stream", [False, True], ids=["full", "stream"])
@pytest.mark.parametrize("protocol", ["http", "nats"])
@pytest.mark.parametrize(
    ("body", "outcome", "code", "model"),
    [
        (chat("made-up"), "invalid", "unknown_model", "other"),
        (chat("counted", temperature="hot"), "invalid", "invalid_request", "other"),
        (chat("counted", max_tokens=2_000_000), "invalid", "", "counted"),
        (chat("counted-flaky"), "error", "backend_failed", "counted-flaky"),
    ],
    ids=["unknown model", "bad field", "too many tokens", "backend fails"],
)
async def test_a_failure_is_counted_once_with_whose_fault_it_is(
    cluster: Cluster,
    http: aiohttp.ClientSession,
    nats: Bus,
    body: dict[str, Any],
    outcome: str,
    code: str,
    model: str,
    protocol: str,
    stream: bool,
) -> None:
    before = await scrape(cluster.url)
    body = body | {"stream": stream}
    if protocol == "http":
        await post(http, CHAT, body)
    else:
        await over_nats(nats, body)
    labels = {"protocol": protocol, "outcome": outcome, "model": model} | ({"code": code} if code else {})
    assert await grown(cluster, before, ANSWERS, **labels) == 1
    after = await scrape(cluster.url)
    assert (
        after.total("orchestra_gateway_answers_total") - before.total("orchestra_gateway_answers_total") == 1
    )


async def test_of_a_stream_that_its_caller_left_the_tokens_passed_on_are_counted(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    before = await scrape(cluster.url)
    read = 0
    body = chat("counted-slow", "w " * 400, stream=True, cache={"no_store": True})
    async with http.post(CHAT, json=body) as answer:
        async for line in answer.content:
            read += b'"content"' in line
            if read >= 5:
                break
        answer.close()
    assert await grown(cluster, before, ANSWERS, outcome="cancelled") == 1
    await eventually(lambda: cluster.running_on("n-counted-slow") == 0)
    after = await scrape(cluster.url)
    passed_on = tokens(after, "counted-slow")[1] - tokens(before, "counted-slow")[1]
    written = grew(before, after, NODE_TOKENS, model="counted-slow", direction="completion")
    assert read <= passed_on <= written < 400


async def test_jobs_are_counted_with_the_tokens_of_their_results(
    cluster: Cluster, http: aiohttp.ClientSession
) -> None:
    before = await scrape(cluster.url)
    async with http.post("/v1/jobs", json=chat("counted", "a job of six words altogether")) as answer:
        job = await answer.json()

    async def ended() -> dict[str, Any] | None:
        async with http.get(f"/v1/jobs/{job['id']}") as answer:
            found: dict[str, Any] = await answer.json()
            return found if found["status"] == "succeeded" else None

    done = await eventually(ended)
    usage = used(done["result"]["usage"])
    assert await grown(cluster, before, "orchestra_jobs_ended_total", status="succeeded") == 1
    after = await scrape(cluster.url)
    counted = tuple(grew(before, after, "orchestra_job_tokens_total", direction=each) for each in DIRECTIONS)
    assert counted == usage


def node(cluster: Cluster, folder: Path, name: str) -> Process:
    """A node of its own process, which can be killed."""
    words = ("node", "--backend", "echo", "--id", name, "--serve", "far", "--speed", "50")
    started = orchestra(*words, "--nats", cluster.nats.url, "--data", str(folder / name))
    started.wait_for("serves far")
    return started


async def test_active_is_the_sum_of_its_stages_at_every_scrape_and_0_after_a_storm(
    cluster: Cluster, http: aiohttp.ClientSession, nats: Bus, tmp_path: Path
) -> None:
    """Requests of every kind, many of them cancelled at any moment, while nodes die and it is scraped."""
    random, storm_over = Random(7), asyncio.Event()
    seen, ended = set[str](), list[int]()
    models = ["counted", "counted-slow", "counted-flaky", "orchestra/debate", "made-up", "far"]

    async def one(number: int) -> None:
        model = random.choice(models)
        body = chat(model, "w " * random.randint(1, 60), stream=random.random() < 0.5)
        body["cache"] = {"force": True} if number % 3 == 0 else {"no_store": True}
        asking = over_nats(nats, body, within_s=10) if number % 4 == 0 else post(http, CHAT, body)
        try:
            async with asyncio.timeout(random.uniform(0, 3)):
                await asking
        except TimeoutError:
            pass
        ended.append(number)

    async def watch() -> None:
        while not storm_over.is_set():
            scraped = await scrape(cluster.url)
            stages = {each: scraped.total("orchestra_gateway_stage", stage=each) for each in STAGES}
            assert scraped.total("orchestra_gateway_active") == sum(stages.values())
            seen.update(stage for stage, count in stages.items() if count)

    watching = asyncio.create_task(watch())
    started = [await asyncio.to_thread(node, cluster, tmp_path, name) for name in ("a", "b")]
    with started[0] as first, started[1] as second:
        await eventually(lambda: len(cluster.running.gateway.registry.serving("far")) == 2)
        storm = asyncio.gather(*(one(number) for number in range(300)))
        await eventually(lambda: len(ended) > 60)
        first.send(signal.SIGKILL)
        await eventually(lambda: len(ended) > 150)
        second.send(signal.SIGKILL)
        await storm
    storm_over.set()
    await watching
    assert "streaming" in seen

    async def quiet() -> bool:
        return (await scrape(cluster.url)).total("orchestra_gateway_active") == 0

    await eventually(quiet, within_s=60)  # nobody cancels what was asked over NATS: it has 10 s
    assert len(cluster.running.gateway.active) == 0


async def test_what_callers_make_up_adds_no_series(
    cluster: Cluster, http: aiohttp.ClientSession, nats: Bus, promtool: str
) -> None:
    """Thousands of models, callers, patterns and settings over HTTP, NATS and as jobs."""
    junk = ["x\ny", "\ud83d", 'q"uote', "\x00nul", "ü" * 300, '{a="b"}', "orchestra/none", "orchestra/\n"]

    async def storm(first: int, count: int) -> None:
        places = asyncio.Semaphore(32)

        async def one(number: int) -> None:
            name = f"{junk[number % len(junk)]}-{number}"
            headers = {"Orchestra-Caller": f"caller-{number}"}
            async with places:
                kind = number % 6
                if kind == 0:
                    await post(http, CHAT, chat(name, stream=number % 2 == 0))
                elif kind == 1:
                    data = json.dumps(chat(name)).encode()
                    await nats.request(CHAT_SUBJECT, data, headers=headers, timeout=30)
                elif kind == 2:
                    await post(http, CHAT, chat(f"orchestra/{name}"))
                elif kind == 3:
                    await post(http, "/v1/jobs", chat(name))
                elif kind == 4:
                    settings = {"settings": {"models": [name, name + "2"]}}
                    await post(http, CHAT, chat("orchestra/ensemble", orchestra=settings))
                else:
                    data = json.dumps(chat("counted")).encode()
                    await nats.request(CHAT_SUBJECT, data, headers=headers, timeout=30)
                    async with http.get(f"/made/up/{number}") as answer:
                        assert answer.status == 404

        await asyncio.gather(*(one(number) for number in range(first, first + count)))

    await storm(0, 60)  # each kind of failure has its series now, and so has the scrape itself
    await scrape(cluster.url)
    before = await scrape(cluster.url)
    await storm(60, 10_000)
    after = await scrape(cluster.url)
    assert set(after.samples) - set(before.samples) == set()
    assert "other" in after.labels("model")
    assert not [each for each in after.labels("model") | after.labels("pattern") if each.endswith("-77")]
    assert await asyncio.to_thread(complaints, promtool, after.text) == ""
