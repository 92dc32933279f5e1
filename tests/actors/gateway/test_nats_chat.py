"""`orchestra.chat` as a NATS client in JavaScript sees it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.fixtures.cluster import Cluster
from tests.fixtures.node_client import ask, start


def chat(model: str, text: str = "one two three", **more: Any) -> dict[str, Any]:
    return {"body": {"model": model, "messages": [{"role": "user", "content": text}]} | more}


def test_a_request_gets_exactly_one_message_with_the_completion(cluster: Cluster) -> None:
    messages = ask(cluster.nats.url, "request", chat("echo"))["messages"]
    assert len(messages) == 1
    answer = json.loads(messages[0]["text"])
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"]["content"] == "one two three"
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["orchestra"]["node"] == "fast"


def test_a_streamed_request_gets_chunks_and_an_empty_message_at_the_end(cluster: Cluster) -> None:
    messages = ask(cluster.nats.url, "stream", chat("slow", stream=True))["messages"]
    assert messages[-1] == {"text": "", "headers": {}}
    chunks = [json.loads(message["text"]) for message in messages[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert [chunk["choices"][0]["delta"].get("content") for chunk in chunks] == [
        "one",
        " two",
        " three",
        None,
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_the_service_is_discovered_with_its_endpoint_and_its_statistics(cluster: Cluster) -> None:
    ask(cluster.nats.url, "stream", chat("echo", stream=True))
    found = ask(cluster.nats.url, "discover")
    assert [one["name"] for one in found["ping"]] == ["orchestra"]
    endpoint = found["info"][0]["endpoints"][0]
    assert (endpoint["name"], endpoint["subject"]) == ("chat", "orchestra.chat")
    stats = found["stats"][0]["endpoints"][0]
    assert stats["num_requests"] >= 1
    assert stats["average_processing_time"] > 0


@pytest.mark.parametrize("stream", [False, True])
def test_an_error_comes_in_the_headers_and_in_openais_shape(cluster: Cluster, stream: bool) -> None:
    command = "stream" if stream else "request"
    messages = ask(cluster.nats.url, command, chat("nope", stream=stream))["messages"]
    assert messages[0]["headers"]["Nats-Service-Error-Code"] == "404"
    assert "no model 'nope'" in messages[0]["headers"]["Nats-Service-Error"]
    error = json.loads(messages[0]["text"])["error"]
    assert (error["code"], error["param"], error["type"]) == (
        "unknown_model",
        "model",
        "invalid_request_error",
    )
    assert [message["text"] for message in messages[1:]] == ([""] if stream else [])


def test_an_unreadable_request_is_refused_and_ended(cluster: Cluster) -> None:
    messages = ask(cluster.nats.url, "stream", {"body": {"model": "echo", "messages": []}})["messages"]
    assert messages[0]["headers"]["Nats-Service-Error-Code"] == "400"
    assert json.loads(messages[0]["text"])["error"]["param"] == "messages"
    assert messages[1]["text"] == ""


def test_a_caller_that_stops_listening_frees_the_node(cluster: Cluster) -> None:
    with start(cluster.nats.url, "leave", chat("slow", stream=True, max_tokens=2000)) as process:
        assert process.stdout is not None
        assert len(json.loads(process.stdout.readline())["messages"]) == 2
        cluster.wait(lambda: cluster.running_on("paced") == 0)
        assert process.poll() is None, "it is still connected, only its subscription is gone"
        process.communicate("end\n", timeout=30)
    assert cluster.running.gateway.in_flight == 0


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_is_cancelled_by_the_callers_own_name_for_it(cluster: Cluster, stream: bool) -> None:
    found = ask(cluster.nats.url, "cancel", chat("slow", stream=stream, max_tokens=2000))
    assert found["answer"] == {"cancelled": True}
    last = found["messages"][-2] if stream else found["messages"][-1]
    assert last["headers"]["Nats-Service-Error-Code"] == "499"
    assert json.loads(last["text"])["error"]["code"] == "cancelled"
    cluster.wait(lambda: cluster.running_on("paced") == 0)
