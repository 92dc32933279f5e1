"""What a request that cannot be answered gets: a status, OpenAI's shape, and the field at fault."""

from __future__ import annotations

import gzip
import json
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDictProxy

from tests.fixtures.cluster import Cluster

HI = [{"role": "user", "content": "hi"}]
IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}
CHAT = "/v1/chat/completions"
TOOLS = [{"type": "function", "function": {"name": "f"}}]
LARGE = {"type": "function", "function": {"name": "f", "description": "x" * 200_000}}
USAGE = {"include_usage": False}
NAMED = {"type": "function", "function": {"name": "g"}}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}


def assistant(call: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "assistant", "tool_calls": [call]}]}


async def post(cluster: Cluster, path: str, **how: Any) -> tuple[int, dict[str, Any], CIMultiDictProxy[str]]:
    async with aiohttp.ClientSession() as session, session.post(cluster.url + path, **how) as answer:
        assert answer.content_type == "application/json"
        return answer.status, (await answer.json())["error"], answer.headers


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"model": None}, "model", "string"),
        ({"model": ""}, "model", "at least 1"),
        ({"messages": []}, "messages", "at least 1"),
        ({"messages": None}, "messages", "valid"),
        ({"messages": "hi"}, "messages", "valid"),
        ({"messages": [{"role": "wizard", "content": "hi"}]}, "messages.0.role", "user"),
        ({"messages": [*HI, {"role": "user"}]}, "messages.1.content", "needed"),
        ({"messages": [{"role": "system", "content": None}]}, "messages.0.content", "needed"),
        ({"messages": [{"role": "function", "content": "4"}]}, "messages", "name of the function"),
        ({"messages": [{"role": "user", "content": None}]}, "messages.0.content", "needed"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages.0.content", "list of text parts"),
        ({"messages": [{"role": "user", "content": [IMAGE]}]}, "messages.0.content", "'image_url'"),
        ({"n": 2}, "n", "one answer"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only allowed when stream"),
        ({"stream": False, "stream_options": {"include_usage": None}}, "stream_options", "stream is true"),
        ({"temperature": 9}, "temperature", "less than or equal to 2"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"max_tokens": 0}, "max_tokens", "greater than or equal to 1"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop", "up to 4"),
        ({"stop": [""]}, "stop", "empty"),
        ({"logprobs": True, "top_logprobs": 99}, "top_logprobs", "20"),
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools", "echo backend calls no"),
        ({"model": "orchestra/single", "tools": TOOLS}, "tools", "name a model"),
        ({"tools": TOOLS * 2}, "tools", "same name"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools.0.function.name", "pattern"),
        ({"tools": [{"type": "retrieval"}]}, "tools.0.type", "function"),
        ({"tools": [*(TOOLS * 129)]}, "tools", "128"),
        ({"tools": [LARGE]}, "tools", "exceed"),
        ({"tools": TOOLS, "tool_choice": "maybe"}, "tool_choice", "required"),
        ({"tools": TOOLS, "tool_choice": ["f"]}, "tool_choice", "required"),
        ({"tools": TOOLS, "tool_choice": NAMED}, "tool_choice", "no tool 'g'"),
        ({"tool_choice": "maybe"}, "tool_choice", "required"),
        ({"functions": [{"name": "f"}]}, "functions", "use tools"),
        (
            {"messages": [{"role": "user", "content": "", "tool_calls": [CALL]}]},
            "messages.0.tool_calls",
            "assistant",
        ),
        (assistant({"id": "1"}), "messages.0.tool_calls", "call 0"),
        (assistant({"function": {}}), "messages.0.tool_calls.0.id", "string"),
        (
            {"messages": [{"role": "tool", "content": "4", "tool_call_id": "1"}]},
            "messages",
            "no call before it",
        ),
        ({"logit_bias": {"5": 1}}, "logit_bias", "not supported"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "json_object"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema", "needed"),
        ({"response_format": {"type": "json_object"}, "regex": "a+"}, "response_format", "one guide"),
        ({"regex": ""}, "regex", "empty"),
        ({"model": "echo-embed"}, "model", "/v1/embeddings"),
        ({"orchestra": {"priority": "vip"}}, "orchestra.priority", "interactive"),
        ({"orchestra": {"budget": {"tokens": 0}}}, "orchestra.budget.tokens", "greater than or equal to 1"),
        ({"orchestra": {"budget": {"seconds": -1}}}, "orchestra.budget.seconds", "greater than 0"),
        ({"orchestra": {"budget": {"token": 9}}}, "orchestra.budget", "tokens, seconds, calls"),
    ],
)
async def test_a_wrong_chat_gets_400_with_its_field(
    cluster: Cluster, change: dict[str, Any], param: str, words: str
) -> None:
    status, error, _ = await post(cluster, CHAT, json={"model": "echo", "messages": HI} | change)
    assert (status, error["type"], error["param"]) == (400, "invalid_request_error", param)
    assert words in error["message"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b'"x"', b"\xff\xfe", b'{"a": "\\ud800"}', b"[" * 5000])
async def test_a_body_that_is_no_json_object_gets_400(cluster: Cluster, body: bytes) -> None:
    status, error, _ = await post(cluster, CHAT, data=body)
    assert (status, error["code"]) == (400, "invalid_request")
    assert error["message"].startswith("body: ")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", {"model": "echo"}, "prompt"),
        ("/v1/completions", {"model": "echo", "prompt": ["a", "b"]}, "prompt"),
        ("/v1/completions", {"model": "echo", "prompt": [1, 2]}, "prompt"),
        ("/v1/completions", {"model": "echo", "prompt": "a", "echo": True}, "echo"),
        ("/v1/completions", {"model": "echo", "prompt": "a", "suffix": "b"}, "suffix"),
        ("/v1/completions", {"model": "echo", "prompt": "a", "best_of": 3}, "best_of"),
        ("/v1/completions", {"model": "orchestra/single", "prompt": "a"}, "model"),
        ("/v1/embeddings", {"model": "echo-embed", "input": []}, "input"),
        ("/v1/embeddings", {"model": "echo-embed", "input": [[1, 2]]}, "input"),
        ("/v1/embeddings", {"model": "echo-embed", "input": ["a"] * 2049}, "input"),
        ("/v1/embeddings", {"model": "echo-embed", "input": "a", "dimensions": 0}, "dimensions"),
        (
            "/v1/completions",
            {"model": "echo", "prompt": "a", "stream_options": {"include_usage": False}},
            "stream_options",
        ),
        ("/v1/embeddings", {"model": "echo", "input": "a"}, "model"),
        ("/v1/embeddings", {"model": "orchestra/single", "input": "a"}, "model"),
    ],
)
async def test_wrong_completions_and_embeddings_get_400_with_their_field(
    cluster: Cluster, path: str, body: dict[str, Any], param: str
) -> None:
    status, error, _ = await post(cluster, path, json=body)
    assert (status, error["param"]) == (400, param)


async def test_unknown_fields_and_nulls_are_ignored(cluster: Cluster) -> None:
    fields = ("n", "stop", "stream", "temperature", "tools", "response_format", "logprobs", "seed")
    body = {"model": "echo", "messages": HI, "store": True, "user": "me", **dict.fromkeys(fields)}
    async with aiohttp.ClientSession() as session, session.post(cluster.url + CHAT, json=body) as answer:
        assert answer.status == 200
        assert (await answer.json())["choices"][0]["message"]["content"] == "hi"


@pytest.mark.parametrize("choice", ["none", "auto", "required", NAMED])
async def test_a_tool_choice_without_tools_is_ignored(cluster: Cluster, choice: Any) -> None:
    without: tuple[dict[str, Any], ...] = ({}, {"tools": None}, {"tools": []})
    for tools in without:
        body = {"model": "echo", "messages": HI, "tool_choice": choice, **tools}
        async with aiohttp.ClientSession() as session, session.post(cluster.url + CHAT, json=body) as answer:
            assert answer.status == 200, await answer.text()


async def test_the_own_length_of_an_embedding_model_is_taken_and_others_are_told_it(cluster: Cluster) -> None:
    body = {"model": "echo-embed", "input": "a", "dimensions": 384}
    path = "/v1/embeddings"
    async with aiohttp.ClientSession() as session:
        for form in ("float", "base64"):
            async with session.post(cluster.url + path, json=body | {"encoding_format": form}) as answer:
                assert answer.status == 200, await answer.text()
    status, error, _ = await post(cluster, path, json=body | {"dimensions": 256})
    assert (status, error["param"]) == (400, "dimensions")
    assert "vectors of 384 numbers" in error["message"]


@pytest.mark.parametrize("ids", [[1, 2], [[1, 2], [3]]])
async def test_token_ids_to_embed_name_the_clients_setting(cluster: Cluster, ids: Any) -> None:
    status, error, _ = await post(cluster, "/v1/embeddings", json={"model": "echo-embed", "input": ids})
    assert (status, error["param"]) == (400, "input")
    assert "check_embedding_ctx_length=False" in error["message"]


async def test_a_compressed_body_is_refused_with_its_encoding(cluster: Cluster) -> None:
    data = gzip.compress(json.dumps({"model": "echo", "messages": HI}).encode())
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    for path in (CHAT, "/v1/jobs"):
        status, error, _ = await post(cluster, path, data=data, headers=headers)
        assert (status, error["code"], "'gzip'" in error["message"]) == (415, "unknown_encoding", True)
    plain = json.dumps({"model": "echo", "messages": HI}).encode()
    async with (
        aiohttp.ClientSession(cluster.url) as session,
        session.post(CHAT, data=plain, headers=headers | {"Content-Encoding": "Identity"}) as answer,
    ):
        assert answer.status == 200


async def test_an_invalid_schema_is_refused_by_the_node_with_400(cluster: Cluster) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "potato"}}}
    body = {"model": "echo", "messages": HI, "response_format": form}
    status, error, _ = await post(cluster, CHAT, json=body)
    assert (status, error["code"]) == (400, "invalid_guide")
    assert "potato" in error["message"]


async def test_an_unknown_preferred_model_of_a_run_names_its_field(cluster: Cluster) -> None:
    body = {"model": "orchestra/single", "messages": HI, "orchestra": {"model": "nope"}}
    status, error, _ = await post(cluster, CHAT, json=body)
    assert (status, error["param"]) == (404, "orchestra.model")


async def test_unknown_paths_and_wrong_methods_answer_in_the_same_shape(cluster: Cluster) -> None:
    status, error, _ = await post(cluster, "/v1/nothing")
    assert (status, error["code"]) == (404, "not_found")
    status, error, headers = await post(cluster, "/v1/models")
    assert (status, error["code"], headers["Allow"]) == (405, "method_not_allowed", "GET, HEAD")
    async with aiohttp.ClientSession() as session, session.get(cluster.url + CHAT) as answer:
        assert (answer.status, answer.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize("said", ["soon", "0", "-1", "nan"])
async def test_a_timeout_that_is_no_time_is_refused(cluster: Cluster, said: str) -> None:
    body = {"model": "echo", "messages": HI}
    status, error, headers = await post(cluster, CHAT, json=body, headers={"X-Request-Timeout": said})
    assert (status, error["param"]) == (400, "X-Request-Timeout")
    assert headers["X-Orchestra-Run"]
