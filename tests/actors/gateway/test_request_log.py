"""The event `request.ended`: one for each request of a keyed route, with the tokens of its response."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.bus import Bus, BusSettings
from actors.bus.subjects import CHAT_SUBJECT
from actors.gateway.settings import GatewaySettings
from actors.runtime.envelope import Envelope
from orchestration.log_events import LogEvent, LogLevel
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually
from tests.fixtures.log_events import recorded_events

CHAT = "/v1/chat/completions"
CANARY = "canary-7f3a"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    backends = [
        ("fast", EchoBackend(EchoSettings(models=("echo",)))),
        ("slow", EchoBackend(EchoSettings(models=("slow",), speed=50))),
    ]
    with running_cluster(backends, gateway=GatewaySettings(http="127.0.0.1:0")) as running:
        yield running


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    with recorded_events() as found:
        yield found


def body(model: str = "echo", **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": f"a b c {CANARY}"}]} | more


async def ended(events: list[LogEvent], count: int = 1) -> list[LogEvent]:
    """The first `count` events of requests, once they are there."""

    def found() -> list[LogEvent]:
        requests = [event for event in events if event.name == "request.ended"]
        return requests if len(requests) >= count else []

    requests: list[LogEvent] = await eventually(found)
    assert len(requests) == count
    return requests


async def post(cluster: Cluster, payload: object, path: str = CHAT, **headers: str) -> bytes:
    async with (
        aiohttp.ClientSession() as http,
        http.post(cluster.url + path, json=payload, headers=headers) as r,
    ):
        return await r.read()


def usage_of(raw: bytes) -> dict[str, Any]:
    """The usage of a complete response, or of the last chunk of a stream that has one."""
    lines = [line[6:] for line in raw.splitlines() if line.startswith(b"data: {")] or [raw]
    return next(found["usage"] for found in map(json.loads, reversed(lines)) if found.get("usage"))


@pytest.mark.parametrize("stream", [False, True])
async def test_a_request_has_one_event_with_the_tokens_of_its_response(
    cluster: Cluster, events: list[LogEvent], stream: bool
) -> None:
    options: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    raw = await post(cluster, body(**options))
    (event,) = await ended(events)
    usage, data = usage_of(raw), event.data
    assert (data["input_tokens"], data["output_tokens"]) == (
        usage["prompt_tokens"],
        usage["completion_tokens"],
    )
    assert (event.model, event.node, event.caller) == ("echo", "fast", "anonymous")
    assert (data["route"], data["protocol"], data["status"]) == (f"POST {CHAT}", "http", 200)
    assert (data["outcome"], data["stream"], event.level) == ("answered", stream, LogLevel.INFO)
    assert ("time_to_first_token_s" in data) is stream
    assert event.run
    assert CANARY not in event.model_dump_json()


async def test_the_choices_of_a_prompt_count_it_once_as_the_response_does(
    cluster: Cluster, events: list[LogEvent]
) -> None:
    raw = await post(cluster, body(n=3, temperature=1))
    (event,) = await ended(events)
    usage = usage_of(raw)
    assert event.data["input_tokens"] == usage["prompt_tokens"]
    assert event.data["output_tokens"] == usage["completion_tokens"]
    assert event.data["choices"] == 3


async def test_a_stream_whose_client_leaves_has_the_tokens_that_were_sent(
    cluster: Cluster, events: list[LogEvent], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    payload = body("slow", stream=True, max_tokens=2_000)
    async with aiohttp.ClientSession() as http, http.post(cluster.url + CHAT, json=payload) as response:
        chunks = 0
        async for line in response.content:
            chunks += line.startswith(b"data: ")
            if chunks == 3:
                break
        response.close()
    (event,) = await ended(events)
    assert (event.data["status"], event.data["outcome"]) == (499, "cancelled")
    assert event.data["output_tokens"] >= 3
    await eventually(lambda: "cancelled with 499" in caplog.text)  # the line comes after the event
    assert CANARY not in event.model_dump_json() + caplog.text


async def test_failures_say_why_and_leave_a_local_line_without_the_prompt(
    cluster: Cluster, events: list[LogEvent], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    await post(cluster, body("nope"))
    await post(cluster, body(temperature=CANARY))
    await post(cluster, body("slow", max_tokens=2_000), **{"X-Request-Timeout": "0.2"})
    unknown, invalid, late = await ended(events, 3)
    assert (unknown.data["status"], unknown.data["error"]) == (404, "unknown_model")
    assert "nope" in unknown.data["error_text"]
    assert (invalid.data["status"], invalid.data["error_text"]) == (400, "field temperature")
    assert (late.data["status"], late.data["outcome"], late.level) == (504, "timed out", LogLevel.ERROR)
    assert late.model == "slow"
    assert late.run in caplog.text
    assert CANARY not in caplog.text + "".join(event.model_dump_json() for event in events)


async def test_chats_and_operations_over_nats_are_recorded_too(
    cluster: Cluster, events: list[LogEvent]
) -> None:
    async def ask(subject: str, payload: object) -> bytes:
        headers = {"Orchestra-Caller": "anonymous"}
        return (await cluster.bus.request(subject, json.dumps(payload).encode(), headers=headers)).data

    answer = cluster.call(ask("orchestra.chat", body()))
    cluster.call(ask("orchestra.chat", {"model": "echo", "messages": []}))
    cluster.call(ask("orchestra.jobs.list", {}))
    chat, invalid, jobs = await ended(events, 3)
    assert chat.data["output_tokens"] == usage_of(answer)["completion_tokens"]
    assert (chat.data["protocol"], chat.data["route"]) == ("nats", "orchestra.chat")
    assert (invalid.data["status"], invalid.data["error"]) == (400, "invalid_request")
    assert (jobs.data["route"], jobs.data["status"]) == ("orchestra.jobs.list", 200)


async def test_a_slow_request_is_a_warning(cluster: Cluster, events: list[LogEvent]) -> None:
    settings = cluster.running.gateway.settings
    cluster.running.gateway.settings = settings.model_copy(update={"slow_request_s": 0.01})
    try:
        await post(cluster, body("slow", max_tokens=4))
    finally:
        cluster.running.gateway.settings = settings
    (event,) = await ended(events)
    assert event.data["slow"] is True
    assert event.level is LogLevel.WARNING


async def test_open_routes_and_unknown_paths_are_not_recorded(
    cluster: Cluster, events: list[LogEvent]
) -> None:
    async with aiohttp.ClientSession() as http:
        for path in ("/healthz", "/metrics", "/no/such/path"):
            async with http.get(cluster.url + path) as response:
                await response.read()
    await post(cluster, body())
    assert [event.data["route"] for event in await ended(events)] == [f"POST {CHAT}"]


@pytest.mark.parametrize("stream", [False, True])
async def test_chats_over_nats_that_pass_their_deadline_have_timed_out(
    cluster: Cluster, events: list[LogEvent], stream: bool
) -> None:
    """Whoever ends them first: the reader of the stream, or the actor that cancels the handler."""
    bus = await Bus.connect(BusSettings(url=cluster.nats.url), name="client")
    slow = json.dumps(body("slow", stream=stream, max_tokens=10_000)).encode()
    for number in range(20):
        headers = Envelope.within(0.2 + number / 1000).headers()
        await bus.publish(CHAT_SUBJECT, slow, reply=f"{bus.inbox}.late", headers=headers)
    try:
        for event in await ended(events, 20):
            assert (event.data["outcome"], event.data["status"]) == ("timed out", 504)
            assert event.data["error"] == "deadline_exceeded"
    finally:
        await bus.close()
