"""What a request that cannot be answered gets: a status, OpenAI's shape, and the field at fault."""

from __future__ import annotations

import gzip
import json
from typing import Any

import aiohttp
import pytest
from multidict import CIMultiDictProxy

from tests.fixtures.chat_bodies import HI, NAMED, WRONG
from tests.fixtures.cluster import Cluster

CHAT = "/v1/chat/completions"


async def post(cluster: Cluster, path: str, **how: Any) -> tuple[int, dict[str, Any], CIMultiDictProxy[str]]:
    async with aiohttp.ClientSession() as session, session.post(cluster.url + path, **how) as answer:
        assert answer.content_type == "application/json"
        return answer.status, (await answer.json())["error"], answer.headers


@pytest.mark.parametrize(("change", "param", "words"), WRONG)
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


async def test_only_the_length_of_an_embedding_model_is_accepted_and_the_error_has_it(
    cluster: Cluster,
) -> None:
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
        assert (status, error["code"], "'gzip'" in error["message"]) == (415, "unsupported_encoding", True)
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
async def test_an_invalid_timeout_is_refused(cluster: Cluster, said: str) -> None:
    body = {"model": "echo", "messages": HI}
    status, error, headers = await post(cluster, CHAT, json=body, headers={"X-Request-Timeout": said})
    assert (status, error["param"]) == (400, "X-Request-Timeout")
    assert headers["X-Orchestra-Run"]
