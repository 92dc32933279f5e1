"""A run as the log tells it: one story, with the tokens of the response, and nothing of the prompt."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.gateway.settings import GatewaySettings
from orchestration.log_events import LogEvent
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually
from tests.fixtures.log_events import recorded_events

CHAT = "/v1/chat/completions"
CANARY = "canary-91c4"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """`broken` fails with a text that quotes its prompt, as an upstream may."""
    backends = [
        ("fast", EchoBackend(EchoSettings(models=("echo",)))),
        ("slow", EchoBackend(EchoSettings(models=("slow",), speed=40))),
    ]
    with running_cluster(backends, gateway=GatewaySettings(http="127.0.0.1:0"), agents=True) as running:
        yield running


@pytest.fixture
def events() -> Iterator[list[LogEvent]]:
    with recorded_events() as found:
        yield found


def body(model: str, **more: Any) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": f"What is {CANARY}?"}]} | more


async def post(cluster: Cluster, payload: object, **headers: str) -> dict[str, Any]:
    url = cluster.url + CHAT
    async with aiohttp.ClientSession() as http, http.post(url, json=payload, headers=headers) as response:
        answer: dict[str, Any] = json.loads(await response.read())
        return answer | {"run": response.headers["X-Orchestra-Run"]}


async def story(events: list[LogEvent], run: str, last: str = "request.ended") -> list[LogEvent]:
    """The events of a run, once the last is there."""

    def found() -> list[LogEvent]:
        own = [event for event in list(events) if event.run == run]
        return own if any(event.name == last for event in own) else []

    own: list[LogEvent] = await eventually(found)
    return own


def named(events: list[LogEvent], name: str) -> list[LogEvent]:
    return [event for event in events if event.name == name]


async def test_a_run_is_one_story_whose_tokens_are_those_of_the_response(
    cluster: Cluster, events: list[LogEvent]
) -> None:
    answer = await post(cluster, body("orchestra/ensemble", orchestra={"model": "echo"}))
    own = await story(events, answer["run"])
    (started,), (ended,), (request,) = (
        named(own, name) for name in ("run.started", "run.ended", "request.ended")
    )
    steps, calls = named(own, "step.ended"), named(own, "generation.ended")
    usage = answer["usage"]
    for event in (ended, request):
        assert event.data["input_tokens"] == usage["prompt_tokens"]
        assert event.data["output_tokens"] == usage["completion_tokens"]
        assert event.pattern == "ensemble"
    assert sum(event.data["output_tokens"] for event in steps) == usage["completion_tokens"]
    assert sum(event.data["output_tokens"] for event in calls) == usage["completion_tokens"]
    assert sum(event.data["input_tokens"] for event in calls) == usage["prompt_tokens"]
    assert {event.step for event in steps} == {step["name"] for step in answer["orchestra"]["steps"]}
    assert len({event.trace for event in own if event.trace}) == 1
    assert started.at <= min(event.at for event in steps) <= ended.at
    assert len({event.id for event in own}) == len(own)


async def test_a_chat_has_its_model_call_and_its_request(cluster: Cluster, events: list[LogEvent]) -> None:
    answer = await post(cluster, body("echo", n=2, temperature=1))
    own = await story(events, answer["run"])
    calls, (request,) = named(own, "generation.ended"), named(own, "request.ended")
    assert len(calls) == 2
    assert sum(event.data["output_tokens"] for event in calls) == request.data["output_tokens"]
    assert {event.node for event in own} == {"fast"}


async def test_nothing_of_the_prompt_is_in_any_event_whatever_the_outcome(
    cluster: Cluster, events: list[LogEvent], caplog: pytest.LogCaptureFixture
) -> None:
    outcomes = {
        "ended": (body("orchestra/ensemble", orchestra={"model": "echo"}), {}),
        "timed out": (body("slow", max_tokens=2_000), {"X-Request-Timeout": "0.2"}),
        "run timed out": (
            body("orchestra/ensemble", orchestra={"model": "slow"}, max_tokens=2_000),
            {"X-Request-Timeout": "0.4"},
        ),
        "refused": (body("echo", top_p=CANARY), {}),
        "unknown": (body("nobody"), {"Authorization": f"Bearer sk-{CANARY}"}),
    }
    for payload, headers in outcomes.values():
        answer = await post(cluster, payload, **headers)
        await story(events, answer["run"])
    async with aiohttp.ClientSession() as http:
        payload = body("slow", stream=True, max_tokens=2_000)
        async with http.post(cluster.url + CHAT, json=payload) as response:
            run = response.headers["X-Orchestra-Run"]
            await response.content.readany()
    await story(events, run)
    assert len(named(events, "request.ended")) == len(outcomes) + 1
    assert CANARY not in "".join(event.model_dump_json() for event in events)
    assert CANARY not in caplog.text


async def test_a_cancelled_call_ends_in_the_log_too(cluster: Cluster, events: list[LogEvent]) -> None:
    async with aiohttp.ClientSession() as http:
        payload = body("slow", stream=True, max_tokens=2_000)
        async with http.post(cluster.url + CHAT, json=payload) as response:
            run = response.headers["X-Orchestra-Run"]
            await response.content.readany()
    own = await story(events, run)
    await story(events, run, last="generation.ended")
    assert named(own, "request.ended")[0].data["outcome"] == "cancelled"
