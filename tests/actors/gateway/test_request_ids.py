"""`X-Request-Id`: the caller's own where it is a sane one, and one for every answer."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import pytest

from tests.fixtures.cluster import Cluster

CHAT: dict[str, Any] = {"model": "echo", "messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v1/chat/completions", CHAT),
        ("POST", "/v1/chat/completions", CHAT | {"stream": True}),
        ("POST", "/v1/chat/completions", {"model": "nope"}),
        ("POST", "/v1/embeddings", {"model": "echo-embed", "input": "a"}),
        ("GET", "/v1/models", None),
        ("GET", "/nothing", None),
        ("PUT", "/v1/jobs", None),
        ("GET", "/healthz", None),
    ],
)
async def test_every_answer_has_a_request_id(
    cluster: Cluster, method: str, path: str, body: dict[str, Any] | None
) -> None:
    async with aiohttp.ClientSession(cluster.url) as session:
        async with session.request(method, path, json=body, headers={"X-Request-Id": "mine-1"}) as answer:
            assert answer.headers.getall("X-Request-Id") == ["mine-1"]
        ids = set()
        for _ in range(2):
            async with session.request(method, path, json=body) as answer:
                ids.update(answer.headers.getall("X-Request-Id"))
        assert len(ids) == 2
        assert all(one.startswith("req_") for one in ids)


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ("0f8fad5b-d9cb-469f-a165-70867728950e", True),
        ("user@host:run=7/a+b_c.d", True),
        ("x" * 128, True),
        ("x" * 129, False),
        ("two words", False),
        ("a*b>", False),
        ('"quoted"', False),
        ("", False),
    ],
)
async def test_only_a_plain_request_id_is_adopted(cluster: Cluster, said: str, kept: bool) -> None:
    async with (
        aiohttp.ClientSession(cluster.url) as session,
        session.post("/v1/chat/completions", json=CHAT, headers={"X-Request-Id": said}) as answer,
    ):
        assert answer.status == 200
        assert (answer.headers["X-Request-Id"] == said) is kept


async def test_a_head_that_is_refused_before_it_is_read_has_one_too(cluster: Cluster) -> None:
    address = urlsplit(cluster.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    writer.write(b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    assert head.startswith(b"HTTP/1.1 414")
    assert b"\r\nx-request-id: req_" in head
