"""The table of operations, and that HTTP and NATS answer from it alike."""

from __future__ import annotations

import json
from typing import Any

import aiohttp
import pytest

from actors.bus.bus import Bus
from actors.bus.message import ERROR_CODE
from actors.bus.settings import BusSettings
from actors.gateway.operations import OPERATIONS, routes_text
from tests.fixtures.cluster import Cluster


def test_each_name_subject_and_route_occurs_once_and_each_row_has_one_handler() -> None:
    names = [each.name for each in OPERATIONS]
    subjects = [each.subject for each in OPERATIONS if each.subject]
    routes = [(method, each.route) for each in OPERATIONS for method in each.methods]
    for values in (names, subjects, routes):
        assert len(set(values)) == len(values)
    for each in OPERATIONS:
        assert (each.handler is None) != (each.http_handler is None), each.name
        assert each.summary, each.name


def test_the_index_lists_every_route() -> None:
    lines = routes_text().splitlines()
    assert len(lines) == len(OPERATIONS)
    assert any(line.startswith("GET    /v1/models/{model} ") for line in lines)


async def over_http(cluster: Cluster, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
    async with aiohttp.ClientSession(cluster.url) as http:
        async with http.request(method, path, data=body) as answer:
            return answer.status, await answer.json()


async def over_nats(cluster: Cluster, subject: str, body: bytes) -> tuple[int, Any]:
    bus = await Bus.connect(BusSettings(url=cluster.nats.url), name="test")
    try:
        answer = await bus.request(subject, body, timeout=30)
        return int(answer.header(ERROR_CODE, "200")), json.loads(answer.data)
    finally:
        await bus.close()


@pytest.mark.parametrize(
    ("method", "path", "subject", "fields"),
    [
        ("GET", "/v1/jobs", "orchestra.jobs.list", {}),
        ("GET", "/v1/jobs?limit=3", "orchestra.jobs.list", {"limit": 3}),
        ("GET", "/v1/jobs?limit=0", "orchestra.jobs.list", {"limit": 0}),
        ("GET", "/v1/jobs?limit=x", "orchestra.jobs.list", {"limit": "x"}),
        ("GET", "/v1/jobs/none", "orchestra.jobs.get", {"id": "none"}),
        ("DELETE", "/v1/jobs/none", "orchestra.jobs.cancel", {"id": "none"}),
        ("POST", "/v1/feedback", "orchestra.feedback", {"run": "none", "score": "good"}),
        ("POST", "/v1/feedback", "orchestra.feedback", {"run": "none", "score": 7}),
        ("POST", "/v1/jobs", "orchestra.jobs.submit", {"model": "none"}),
    ],
)
async def test_http_and_nats_answer_an_operation_alike(
    cluster: Cluster, method: str, path: str, subject: str, fields: dict[str, Any]
) -> None:
    body = json.dumps(fields).encode()
    http = await over_http(cluster, method, path, body if method == "POST" else None)
    assert await over_nats(cluster, subject, body) == http


async def test_a_head_request_has_the_status_of_the_get_request(cluster: Cluster) -> None:
    async with aiohttp.ClientSession(cluster.url) as http:
        for path, status in (("/v1/jobs?limit=1", 200), ("/v1/models/echo", 200), ("/v1/jobs/none", 404)):
            async with http.head(path) as answer:
                assert (answer.status, await answer.read()) == (status, b"")


async def test_a_path_with_a_slash_too_many_does_not_exist(cluster: Cluster) -> None:
    for path in ("/v1/jobs/", "/v1/jobs/a/b", "/v1/runs//events", "/healthz/"):
        status, answer = await over_http(cluster, "GET", path)
        assert (status, answer["error"]["code"]) == (404, "not_found")
