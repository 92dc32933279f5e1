"""The time to the first token of one request is one number: in its span, the metric and its event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest
from prometheus_client import REGISTRY

from actors.backends.echo import EchoBackend, EchoSettings
from actors.bus.message import Message
from actors.bus.subjects import CHAT_SUBJECT
from orchestration.log_events import LogEvent
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually
from tests.fixtures.log_events import recorded_events
from tests.fixtures.receiver import attributes, receiver

FIRST = "gen_ai.response.time_to_first_chunk"
LATE_S = 0.05
"""When the first token of the model comes."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    echo = EchoBackend(EchoSettings(models=("late",), first_token_s=LATE_S))
    with running_cluster([("node", echo)], agents=True) as running:
        yield running


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    with recorded_events() as found:
        yield found


def body(model: str, stream: bool = True) -> dict[str, Any]:
    said = {"model": model, "stream": stream, "messages": [{"role": "user", "content": "one two three"}]}
    return said | ({} if model == "late" else {"orchestra": {"model": "late"}})


async def over_http(cluster: Cluster, asked: dict[str, Any]) -> None:
    async with aiohttp.ClientSession(cluster.url) as session:
        async with session.post("/v1/chat/completions", json=asked) as answer:
            assert answer.status == 200, await answer.text()
            await answer.read()


async def over_nats(cluster: Cluster, asked: dict[str, Any]) -> None:
    async def ask() -> None:
        ended = asyncio.Event()

        def take(message: Message) -> None:
            if not message.data or not asked["stream"]:
                ended.set()

        subscription = await cluster.bus.subscribe("answers.first", take)
        await cluster.bus.publish(CHAT_SUBJECT, json.dumps(asked).encode(), reply="answers.first")
        async with asyncio.timeout(30):
            await ended.wait()
        await subscription.unsubscribe()

    await asyncio.to_thread(cluster.call, ask())


WAYS = {"http": over_http, "nats": over_nats}


def metric(pattern: str, part: str) -> float:
    name = f"orchestra_gateway_first_token_seconds_{part}"
    model = "late"
    return REGISTRY.get_sample_value(name, {"model": model, "pattern": pattern}) or 0.0


def named(events: list[LogEvent], name: str) -> list[LogEvent]:
    return [event for event in events if event.name == name]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("model", ["late", "orchestra/debate"])
async def test_span_metric_and_event_of_a_stream_have_the_same_number(
    cluster: Cluster, events: list[LogEvent], model: str, way: str
) -> None:
    pattern = model.partition("/")[2] or "none"
    count, total = metric(pattern, "count"), metric(pattern, "sum")
    async with receiver() as told:
        told.trace()
        await WAYS[way](cluster, body(model))
        (ended,) = await eventually(lambda: named(events, "request.ended"))
        tree = await told.whole_tree(ended.trace, "POST " if way == "http" else "process ", "chat ")
    first_s = ended.data["time_to_first_token_s"]
    (root,) = tree.roots
    assert attributes(root)[FIRST] == first_s >= LATE_S
    assert metric(pattern, "count") == count + 1
    assert metric(pattern, "sum") - total == pytest.approx(first_s, abs=1e-9)
    calls = {attributes(span)["gen_ai.response.id"]: attributes(span) for span in tree.named("chat ")}
    generations = {event.data["generation"]: event.data for event in named(events, "generation.ended")}
    assert generations.keys() == calls.keys()
    for generation, data in generations.items():
        assert calls[generation][FIRST] == data["time_to_first_token_s"] >= LATE_S
    if model == "late":
        assert first_s >= data["time_to_first_token_s"]


async def test_a_generation_from_the_queue_has_it_too(cluster: Cluster, events: list[LogEvent]) -> None:
    direct = cluster.running.direct
    settings = direct.settings
    direct.settings = settings.model_copy(update={"direct": False})
    try:
        async with receiver() as told:
            told.trace()
            await over_http(cluster, body("late"))
            (ended,) = await eventually(lambda: named(events, "generation.ended"))
            tree = await told.whole_tree(ended.trace, "POST ", "queue", "chat ")
    finally:
        direct.settings = settings
    (call,) = tree.named("chat ")
    assert attributes(call)[FIRST] == ended.data["time_to_first_token_s"] >= LATE_S


@pytest.mark.parametrize("way", WAYS)
async def test_a_complete_answer_has_no_time_to_its_first_token(
    cluster: Cluster, events: list[LogEvent], way: str
) -> None:
    count = metric("none", "count")
    async with receiver() as told:
        told.trace()
        await WAYS[way](cluster, body("late", stream=False))
        (ended,) = await eventually(lambda: named(events, "request.ended"))
        tree = await told.whole_tree(ended.trace, "POST " if way == "http" else "process ", "chat ")
    assert metric("none", "count") == count
    assert not [span for span in tree.spans if FIRST in attributes(span)]
    found = named(events, "request.ended") + named(events, "generation.ended")
    assert [event.data for event in found if "time_to_first_token_s" in event.data] == []


@pytest.mark.parametrize("way", WAYS)
async def test_without_tracing_a_request_is_joined_to_the_events_of_its_run(
    cluster: Cluster, events: list[LogEvent], way: str
) -> None:
    await WAYS[way](cluster, body("orchestra/debate", stream=False))
    (ended,) = await eventually(lambda: named(events, "request.ended"))
    (run,) = await eventually(lambda: named(events, "run.ended"))
    assert (run.run, run.trace, len(run.trace)) == (ended.run, ended.trace, 32)
    assert {event.trace for event in named(events, "generation.ended")} == {run.trace}
    assert ended.span == ""
