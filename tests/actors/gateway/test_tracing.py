"""What a real receiver has of requests: each under one root, unless its caller or the ratio rule it out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import aiohttp
import pytest
from opentelemetry.sdk.trace import TracerProvider

from actors.backends.echo import EchoBackend, EchoSettings
from actors.telemetry import telemetry
from actors.telemetry.telemetry import TelemetrySettings, start_tracing
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.collector import Collector, Span, collector
from tests.fixtures.eventually import eventually
from tests.fixtures.node_client import ask as ask_over_nats

CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "one two"}]
CALLER = "ab" * 16


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    echo = EchoSettings(models=("echo",), embedding_models=("embed",), repeat=False)
    with running_cluster([("node", EchoBackend(echo))], agents=True) as running:
        yield running


class Receiver:
    """Has this process trace to `told`, as settings say."""

    def __init__(self, told: Collector) -> None:
        self.told = told
        self._providers: list[TracerProvider] = []

    def trace(self, ratio: float = 1.0) -> None:
        provider = start_tracing(TelemetrySettings(otlp_endpoint=self.told.url, sample_ratio=ratio))
        assert provider is not None
        self._providers.append(provider)

    async def flush(self) -> None:
        for provider in self._providers:
            await asyncio.to_thread(provider.force_flush)

    async def one_root(self, trace: str, *names: str) -> Span:
        """The root of a trace, once spans of these names and all parents have arrived; fails if it keeps
        several roots."""

        async def roots() -> list[Span]:
            await self.flush()
            spans = self.told.of_trace(trace)
            if not all(any(span.name.startswith(name) for span in spans) for name in names):
                return []
            ids = {span.id for span in spans}
            return [span for span in spans if span.parent not in ids]

        async def has_one_root() -> bool:
            return len(await roots()) == 1

        await eventually(has_one_root)
        (root,) = await roots()
        return root

    def end(self) -> None:
        for provider in self._providers:
            provider.shutdown()


@pytest.fixture
async def receiver(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Receiver]:
    monkeypatch.setattr(telemetry, "_tracer", telemetry._tracer)
    monkeypatch.setattr(telemetry, "_tracing", False)
    async with collector() as told:
        made = Receiver(told)
        yield made
        await asyncio.to_thread(made.end)


async def post(cluster: Cluster, path: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    async with aiohttp.ClientSession(cluster.url) as session:
        async with session.post(path, json=body, headers=headers) as answer:
            said: dict[str, Any] = await answer.json()
            return said


@pytest.mark.parametrize("model", ["echo", "orchestra/single", "orchestra/self-consistency"])
async def test_an_http_request_without_a_trace_is_the_root_of_one(
    cluster: Cluster, receiver: Receiver, model: str
) -> None:
    receiver.trace()
    answer = await post(cluster, CHAT, {"model": model, "messages": HI})
    root = await receiver.one_root(answer["orchestra"]["trace_id"], "POST ", "Node ")
    assert (root.name, root.parent) == (f"POST {CHAT}", "")


async def test_a_chat_over_nats_is_the_root_of_its_trace(cluster: Cluster, receiver: Receiver) -> None:
    receiver.trace()
    body = {"body": {"model": "orchestra/single", "messages": HI}}
    said = await asyncio.to_thread(ask_over_nats, cluster.nats.url, "request", body)
    trace = json.loads(said["messages"][0]["text"])["orchestra"]["trace_id"]
    root = await receiver.one_root(trace, "ChatService ", "invoke_agent coordinator", "Node ")
    assert (root.name, root.parent) == ("ChatService CompleteChat", "")


async def test_a_job_and_its_work_are_one_trace(cluster: Cluster, receiver: Receiver) -> None:
    receiver.trace()
    job = await post(cluster, "/v1/jobs", {"model": "orchestra/single", "messages": HI})
    root = await receiver.one_root(job["trace_id"], "POST ", "invoke_agent coordinator", "Node ")
    assert (root.name, root.parent) == ("POST /v1/jobs", "")


@pytest.mark.parametrize("sampled", [True, False])
async def test_a_caller_says_whether_its_request_is_traced(
    cluster: Cluster, receiver: Receiver, sampled: bool
) -> None:
    receiver.trace(ratio=0.0 if sampled else 1.0)
    traceparent = f"00-{CALLER}-{'cd' * 8}-0{int(sampled)}"
    answer = await post(cluster, CHAT, {"model": "orchestra/single", "messages": HI}, traceparent=traceparent)
    assert answer["orchestra"].get("trace_id") == (CALLER if sampled else None)
    if sampled:
        assert (await receiver.one_root(CALLER, "POST ", "Node ")).parent == "cd" * 8
    else:
        receiver.trace()
        other = await post(cluster, CHAT, {"model": "echo", "messages": HI})
        await receiver.one_root(other["orchestra"]["trace_id"], "POST ")
        assert receiver.told.of_trace(CALLER) == []


async def test_what_the_ratio_leaves_out_is_not_named_in_the_answer(
    cluster: Cluster, receiver: Receiver
) -> None:
    receiver.trace(ratio=0.0)
    for model in ("echo", "orchestra/single"):
        answer = await post(cluster, CHAT, {"model": model, "messages": HI})
        assert "trace_id" not in answer["orchestra"]
    job = await post(cluster, "/v1/jobs", {"model": "orchestra/single", "messages": HI})
    assert "trace_id" not in job
    await receiver.flush()
    assert receiver.told.spans == []


async def test_without_an_endpoint_no_answer_names_a_trace_of_ours(cluster: Cluster) -> None:
    for model in ("echo", "orchestra/single"):
        answer = await post(cluster, CHAT, {"model": model, "messages": HI})
        assert "trace_id" not in answer["orchestra"]


@pytest.mark.parametrize(
    "said", ["rubbish", "", f"00-{'0' * 32}-{'cd' * 8}-01", f"00-{CALLER}-{'0' * 16}-01"]
)
async def test_a_traceparent_that_is_none_counts_as_left_out(
    cluster: Cluster, receiver: Receiver, said: str
) -> None:
    receiver.trace()
    answer = await post(cluster, CHAT, {"model": "echo", "messages": HI}, traceparent=said)
    root = await receiver.one_root(answer["orchestra"]["trace_id"], "POST ", "Node ")
    assert root.parent == ""
    assert root.trace != CALLER


async def test_requests_in_one_packet_have_a_trace_each_and_health_checks_have_none(
    cluster: Cluster, receiver: Receiver
) -> None:
    receiver.trace()
    body = json.dumps({"model": "echo", "messages": HI}).encode()
    one = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body)
    last = b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n"
    host, port = cluster.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(one * 3 + last)
    said = await asyncio.wait_for(reader.read(), 10)
    writer.close()
    assert said.count(b"HTTP/1.1 200") == 4
    await receiver.flush()
    roots = [span for span in receiver.told.spans if not span.parent]
    assert [span.name for span in roots] == [f"POST {CHAT}"] * 3
    assert len({span.trace for span in roots}) == 3
