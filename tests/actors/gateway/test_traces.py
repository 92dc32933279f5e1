"""Every request is one whole tree at a real receiver: by route, streamed or not, and however it ends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from typing import Any

import aiohttp
import pytest

from actors.backends.base import Output
from actors.backends.echo import EchoBackend, EchoSettings
from actors.telemetry.tracing import tracing
from orchestration.messages import Generation
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually
from tests.fixtures.node_client import ask as ask_over_nats
from tests.fixtures.receiver import Receiver, Tree, attributes, failed, receiver

CHAT, COMPLETION, EMBEDDING = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"
CALLER = "ab" * 16
HI = [{"role": "user", "content": "one two three four"}]


class EndlessEmbeddings(EchoBackend):
    """Embeds until it is cancelled."""

    async def generate(self, generation: Generation) -> AsyncGenerator[Output, None]:
        if generation.kind == "embedding":
            await asyncio.get_running_loop().create_future()
        async for output in super().generate(generation):
            yield output


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    quick = EchoSettings(models=("echo",), embedding_models=("embed",), repeat=False)
    slow = EchoSettings(models=("slow",), embedding_models=("slow-embed",), speed=20, repeat=True)
    broken = EchoSettings(models=("broken",), embedding_models=("broken-embed",), fail_first=1_000_000)
    nodes = [
        ("node", EchoBackend(quick)),
        ("slow-node", EndlessEmbeddings(slow)),
        ("broken", EchoBackend(broken)),
    ]
    with running_cluster(nodes, agents=True) as running:
        yield running


@pytest.fixture
async def told() -> AsyncIterator[Receiver]:
    async with receiver() as made:
        yield made


@pytest.fixture(autouse=True)
def off() -> Iterator[None]:
    """No test leaves tracing on."""
    yield
    assert tracing.tracer is None


async def only_tree(told: Receiver, *names: str) -> Tree:
    """The tree of the only trace there is."""

    async def trace() -> str:
        await told.flush()
        traces = {span.trace_id.hex() for span in told.spans if not span.parent_span_id}
        return traces.pop() if len(traces) == 1 else ""

    return await told.whole_tree(await eventually(trace), *names)


ON_ECHO = {"orchestra": {"model": "echo"}}
ON_SLOW = {"orchestra": {"model": "slow"}}
ON_BROKEN = {"orchestra": {"model": "broken"}}
LONG = [{"role": "user", "content": "word " * 9_000}]
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"model": "echo", "messages": HI}),
    "completion": (COMPLETION, {"model": "echo", "prompt": "one two"}),
    "embedding": (EMBEDDING, {"model": "embed", "input": ["one", "two"]}),
    "single": (CHAT, {"model": "orchestra/single", "messages": HI} | ON_ECHO),
    "debate": (CHAT, {"model": "orchestra/debate", "messages": HI} | ON_ECHO),
    "maestro": (CHAT, {"model": "orchestra/maestro", "messages": HI} | ON_ECHO),
    "two choices": (CHAT, {"model": "echo", "messages": HI, "n": 2}),
}


def streamed_or_not(paths: Iterable[tuple[str, str]]) -> list[tuple[str, bool]]:
    """Each name both ways; embeddings are never streamed."""
    ways = {name: (False,) if path == EMBEDDING else (False, True) for name, path in paths}
    return [(name, stream) for name, each in ways.items() for stream in each]


@pytest.mark.parametrize(("route", "stream"), streamed_or_not((name, BODIES[name][0]) for name in BODIES))
async def test_an_answer_is_one_tree_whose_tokens_are_those_of_the_answer(
    cluster: Cluster, told: Receiver, route: str, stream: bool
) -> None:
    told.trace()
    path, body = BODIES[route]
    if stream:
        body = body | {"stream": True, "stream_options": {"include_usage": True}}
    async with aiohttp.ClientSession(cluster.url) as session, session.post(path, json=body) as answer:
        text = await answer.text()
        assert answer.status == 200, text
    usage = json.loads(text)["usage"] if not stream else usage_of(text)
    if route == "two choices":  # each reads the prompt, which the answer's usage has once
        usage["prompt_tokens"] *= 2
    tree = await only_tree(told, "POST ", "attempt on ", "generate ")
    (root,) = tree.roots
    assert (root.name, root.parent_span_id) == (f"POST {path}", b"")
    assert attributes(root)["http.response.status_code"] == 200
    assert tree.tokens() == (usage["prompt_tokens"], usage.get("completion_tokens", 0))
    assert not any(failed(span) for span in tree.spans)


def usage_of(stream: str) -> dict[str, Any]:
    chunks = [json.loads(line[6:]) for line in stream.splitlines() if line.startswith("data: {")]
    found: dict[str, Any] = next(chunk["usage"] for chunk in reversed(chunks) if chunk.get("usage"))
    return found


async def post(cluster: Cluster, path: str, body: dict[str, Any], **headers: str) -> dict[str, Any]:
    async with aiohttp.ClientSession(cluster.url) as session:
        async with session.post(path, json=body, headers=headers) as answer:
            said: dict[str, Any] = await answer.json()
            return said


async def test_a_chat_over_nats_is_the_root_of_its_trace(cluster: Cluster, told: Receiver) -> None:
    told.trace()
    body = {"body": {"model": "orchestra/single", "messages": HI} | ON_ECHO}
    said = await asyncio.to_thread(ask_over_nats, cluster.nats.url, "request", body)
    answer = json.loads(said["messages"][0]["text"])
    tree = await told.whole_tree(answer["orchestra"]["trace_id"], "process orchestra.chat", "generate ")
    assert [(root.name, root.parent_span_id) for root in tree.roots] == [("process orchestra.chat", b"")]
    assert tree.tokens() == (answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"])


@pytest.mark.parametrize("model", ["echo", "orchestra/single"])
async def test_a_job_and_its_work_are_one_trace(cluster: Cluster, told: Receiver, model: str) -> None:
    told.trace()
    body = {"model": model, "messages": HI} | (ON_ECHO if model != "echo" else {})
    job = await post(cluster, "/v1/jobs", body)
    work = "job" if model == "echo" else "invoke_workflow single"
    tree = await told.whole_tree(job["trace_id"], "POST /v1/jobs", work, "generate ")
    assert [(root.name, root.parent_span_id) for root in tree.roots] == [("POST /v1/jobs", b"")]
    assert tree.parent(tree.named(work)[0]).name == "send RUNS"

    async def ended() -> dict[str, Any] | None:
        async with aiohttp.ClientSession(cluster.url) as session, session.get(f"/v1/jobs/{job['id']}") as got:
            found: dict[str, Any] = await got.json()
            return found if found["status"] == "succeeded" else None

    usage = (await eventually(ended))["result"]["usage"]
    assert tree.tokens() == (usage["prompt_tokens"], usage["completion_tokens"])


@pytest.mark.parametrize("sampled", [True, False])
async def test_a_caller_says_whether_its_request_is_traced(
    cluster: Cluster, told: Receiver, sampled: bool
) -> None:
    told.trace(sample_ratio=0.0 if sampled else 1.0)
    traceparent = f"00-{CALLER}-{'cd' * 8}-0{int(sampled)}"
    body = {"model": "orchestra/single", "messages": HI} | ON_ECHO
    answer = await post(cluster, CHAT, body, traceparent=traceparent)
    assert answer["orchestra"].get("trace_id") == (CALLER if sampled else None)
    if sampled:
        (root,) = (await told.whole_tree(CALLER, "POST ", "generate ")).roots
        assert root.parent_span_id.hex() == "cd" * 8
    else:
        await told.flush()
        assert told.spans == []


async def test_a_callers_span_is_linked_where_the_settings_say_so(cluster: Cluster, told: Receiver) -> None:
    told.trace(client_context="link")
    traceparent = f"00-{CALLER}-{'cd' * 8}-01"
    answer = await post(cluster, CHAT, {"model": "echo", "messages": HI}, traceparent=traceparent)
    assert answer["orchestra"]["trace_id"] != CALLER
    (root,) = (await told.whole_tree(answer["orchestra"]["trace_id"], "POST ", "generate ")).roots
    assert root.parent_span_id == b""
    assert [(link.trace_id.hex(), link.span_id.hex()) for link in root.links] == [(CALLER, "cd" * 8)]


async def test_what_the_ratio_leaves_out_is_not_named_in_the_answer(cluster: Cluster, told: Receiver) -> None:
    told.trace(sample_ratio=0.0)
    for model in ("echo", "orchestra/single"):
        answer = await post(cluster, CHAT, {"model": model, "messages": HI})
        assert "trace_id" not in answer["orchestra"]
    job = await post(cluster, "/v1/jobs", {"model": "orchestra/single", "messages": HI})
    assert "trace_id" not in job
    await told.flush()
    assert told.spans == []


async def test_without_an_endpoint_no_answer_names_a_trace_of_ours(cluster: Cluster) -> None:
    for model in ("echo", "orchestra/single"):
        answer = await post(cluster, CHAT, {"model": model, "messages": HI})
        assert "trace_id" not in answer["orchestra"]


@pytest.mark.parametrize(
    "said", ["rubbish", "", f"00-{'0' * 32}-{'cd' * 8}-01", f"00-{'ab' * 16}-{'0' * 16}-01"]
)
async def test_a_traceparent_that_is_none_counts_as_left_out(
    cluster: Cluster, told: Receiver, said: str
) -> None:
    told.trace()
    answer = await post(cluster, CHAT, {"model": "echo", "messages": HI}, traceparent=said)
    (root,) = (await told.whole_tree(answer["orchestra"]["trace_id"], "POST ", "generate ")).roots
    assert root.parent_span_id == b""
    assert root.trace_id.hex() != CALLER


async def test_requests_in_one_packet_have_a_trace_each_and_health_checks_have_none(
    cluster: Cluster, told: Receiver
) -> None:
    told.trace()
    body = json.dumps({"model": "echo", "messages": HI}).encode()
    one = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b" % (CHAT.encode(), len(body), body)
    last = b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n"
    host, port = cluster.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(one * 3 + last)
    said = await asyncio.wait_for(reader.read(), 30)
    writer.close()
    assert said.count(b"HTTP/1.1 200") == 4
    await told.flush()
    await eventually(lambda: len([span for span in told.spans if not span.parent_span_id]) == 3)
    roots = [span for span in told.spans if not span.parent_span_id]
    assert [span.name for span in roots] == [f"POST {CHAT}"] * 3
    assert len({span.trace_id for span in roots}) == 3


BAD: dict[str, tuple[str, dict[str, Any], int]] = {
    "no such model": (CHAT, {"model": "none", "messages": HI}, 404),
    "no JSON": (CHAT, {"model": 5}, 400),
    "a prompt that is too long": (CHAT, {"model": "echo", "messages": LONG}, 400),
    "a backend that fails": (CHAT, {"model": "broken", "messages": HI}, 502),
    "a run whose backend fails": (CHAT, {"model": "orchestra/single", "messages": HI} | ON_BROKEN, 502),
    "a completion whose backend fails": (COMPLETION, {"model": "broken", "prompt": "one"}, 502),
    "an embedding whose backend fails": (EMBEDDING, {"model": "broken-embed", "input": ["one"]}, 502),
    "an embedding by no such model": (EMBEDDING, {"model": "none", "input": ["one"]}, 404),
    "an embedding of nothing": (EMBEDDING, {"model": "embed", "input": 5}, 400),
    "no time to embed": (EMBEDDING, {"model": "slow-embed", "input": ["one"]}, 504),
    "no time": (CHAT, {"model": "slow", "messages": HI, "max_tokens": 400}, 504),
    "a run without time": (
        CHAT,
        {"model": "orchestra/single", "messages": HI, "max_tokens": 400} | ON_SLOW,
        504,
    ),
}


@pytest.mark.parametrize(("what", "stream"), streamed_or_not((name, BAD[name][0]) for name in BAD))
async def test_a_request_that_fails_is_one_tree_and_only_a_fault_of_ours_is_an_error_of_the_server(
    cluster: Cluster, told: Receiver, what: str, stream: bool
) -> None:
    told.trace()
    path, body, status = BAD[what]
    headers = {"X-Request-Timeout": "0.5"} if status == 504 else {}
    async with aiohttp.ClientSession(cluster.url) as session:
        async with session.post(path, json=body | stream_field(stream), headers=headers) as answer:
            text = await answer.text()
    assert answer.status == status or '"error"' in text
    tree = await only_tree(told, "POST ", *([] if status < 500 else ["generate "]))
    (root,) = tree.roots
    assert failed(root) == (status >= 500)
    assert ("error.type" in attributes(root)) == (status >= 500)


def stream_field(stream: bool) -> dict[str, bool]:
    return {"stream": True} if stream else {}


LEFT: dict[str, tuple[str, dict[str, Any]]] = {
    "chat": (CHAT, {"model": "slow", "messages": HI, "max_tokens": 2000}),
    "completion": (COMPLETION, {"model": "slow", "prompt": "one two", "max_tokens": 2000}),
    "embedding": (EMBEDDING, {"model": "slow-embed", "input": ["one", "two"]}),
    "shared chat": (CHAT, {"model": "slow", "messages": HI, "max_tokens": 2000, "temperature": 0}),
    "single": (CHAT, {"model": "orchestra/single", "messages": HI, "max_tokens": 2000} | ON_SLOW),
    "debate": (CHAT, {"model": "orchestra/debate", "messages": HI, "max_tokens": 2000} | ON_SLOW),
    "vote": (CHAT, {"model": "orchestra/self-consistency", "messages": HI, "max_tokens": 2000} | ON_SLOW),
}


@pytest.mark.parametrize(("route", "stream"), streamed_or_not((name, LEFT[name][0]) for name in LEFT))
async def test_a_caller_that_leaves_ends_everything_below_it_and_is_no_error(
    cluster: Cluster, told: Receiver, route: str, stream: bool
) -> None:
    await eventually(lambda: cluster.running_on("slow-node") == 0)
    told.trace()
    path, body = LEFT[route]
    async with aiohttp.ClientSession(cluster.url) as session:
        asking = asyncio.create_task(session.post(path, json=body | stream_field(stream)))
        await eventually(lambda: cluster.running_on("slow-node") > 0)
        if stream:
            answer = await asking
            await answer.content.readline()
            answer.close()
        else:
            asking.cancel()
    tree = await only_tree(told, "POST ", "generate ", "attempt on ")
    (root,) = tree.roots
    assert attributes(root)["orchestra.outcome"] == "cancelled"
    assert not any(failed(span) for span in tree.spans), tree
    await eventually(lambda: cluster.running_on("slow-node") == 0)


async def test_a_cancelled_job_is_one_tree(cluster: Cluster, told: Receiver) -> None:
    told.trace()
    job = await post(cluster, "/v1/jobs", {"model": "orchestra/single", "messages": HI} | ON_SLOW)
    await eventually(lambda: cluster.running_on("slow-node") > 0)
    async with aiohttp.ClientSession(cluster.url) as session:
        await session.delete(f"/v1/jobs/{job['id']}")
    await told.whole_tree(job["trace_id"], "POST /v1/jobs", "invoke_workflow single", "generate ")


async def test_what_a_cache_answers_says_so_and_calls_no_model(cluster: Cluster, told: Receiver) -> None:
    body = {"model": "echo", "messages": HI, "temperature": 0, "seed": 5}
    await post(cluster, CHAT, body)
    told.trace()
    answer = await post(cluster, CHAT, body)
    tree = await told.whole_tree(answer["orchestra"]["trace_id"], "POST ")
    (span,) = tree.spans
    assert attributes(span)["orchestra.cache"] == "hit"


async def test_a_stream_over_nats_is_one_tree(cluster: Cluster, told: Receiver) -> None:
    told.trace()
    body = {"body": {"model": "orchestra/debate", "messages": HI, "stream": True} | ON_ECHO}
    await asyncio.to_thread(ask_over_nats, cluster.nats.url, "stream", body)
    tree = await only_tree(told, "process orchestra.chat", "generate ")
    assert len(tree.named("invoke_workflow debate")) == 1


async def test_the_verdict_of_a_critic_is_a_log_record_of_its_run(cluster: Cluster, told: Receiver) -> None:
    told.trace()
    body = {"model": "orchestra/debate", "messages": HI} | ON_ECHO
    answer = await post(cluster, CHAT, body)
    tree = await told.whole_tree(answer["orchestra"]["trace_id"], "invoke_workflow debate")
    await eventually(lambda: told.logs)
    (workflow,) = tree.named("invoke_workflow debate")
    assert {record.event_name for record in told.logs} == {"gen_ai.evaluation.result"}
    assert {record.span_id for record in told.logs} == {workflow.span_id}
    assert attributes(told.logs[0])["gen_ai.evaluation.name"] == "debate"


async def test_a_plan_and_what_follows_it_say_what_they_are(cluster: Cluster, told: Receiver) -> None:
    told.trace()
    answer = await post(cluster, CHAT, {"model": "orchestra/maestro", "messages": HI} | ON_ECHO)
    tree = await told.whole_tree(answer["orchestra"]["trace_id"], "invoke_workflow maestro", "plan ")
    for span in (*tree.named("plan "), *tree.named("invoke_agent ")):
        found = attributes(span)
        assert found["openinference.span.kind"] == "AGENT"
        assert span.name == f"{found['gen_ai.operation.name']} {found['gen_ai.agent.name']}"
        assert not [name for name in found if name.startswith("gen_ai.usage")]
    assert len({attributes(span)["gen_ai.response.id"] for span in tree.named("chat ")}) == len(
        tree.named("chat ")
    )


async def test_a_span_names_the_user_and_the_session_of_the_body(cluster: Cluster, told: Receiver) -> None:
    told.trace()
    body = {"model": "echo", "messages": HI, "user": "u-1", "metadata": {"session_id": "s-1"}}
    answer = await post(cluster, CHAT, body)
    (root,) = (await told.whole_tree(answer["orchestra"]["trace_id"], "POST ", "chat ")).roots
    found = attributes(root)
    assert (found["user.id"], found["session.id"], found["gen_ai.conversation.id"]) == ("u-1", "s-1", "s-1")


async def test_the_time_to_the_first_token_is_of_streams_only(cluster: Cluster, told: Receiver) -> None:
    told.trace()
    for stream in (True, False):
        body = {"model": "echo", "messages": HI, "stream": stream, "temperature": 1}
        async with aiohttp.ClientSession(cluster.url) as session, session.post(CHAT, json=body) as answer:
            await answer.read()

    def calls() -> list[dict[str, Any]]:
        return [attributes(span) for span in told.spans if span.name == "chat echo"]

    async def both() -> bool:
        await told.flush()
        return len(calls()) == 2

    await eventually(both)
    name = "gen_ai.response.time_to_first_chunk"
    assert sorted((each["gen_ai.request.stream"], name in each) for each in calls()) == [
        (False, False),
        (True, True),
    ]
