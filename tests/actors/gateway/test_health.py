"""The pages that only read, and what a gateway says while something is missing."""

from __future__ import annotations

from typing import Any

import aiohttp

from actors.backends.echo import EchoBackend, EchoSettings
from tests.fixtures.cluster import Cluster, running_cluster

CHAT = "/v1/chat/completions"
HI = [{"role": "user", "content": "one two"}]


async def get(cluster: Cluster, path: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(cluster.url + path) as answer:
        return answer.status, await answer.json()


async def ask(cluster: Cluster, model: str) -> tuple[int, Any]:
    body = {"model": model, "messages": HI}
    headers = {"X-Request-Timeout": "1"}
    async with (
        aiohttp.ClientSession() as session,
        session.post(cluster.url + CHAT, json=body, headers=headers) as answer,
    ):
        return answer.status, await answer.json()


async def test_a_gateway_with_a_node_is_healthy_and_ready(cluster: Cluster) -> None:
    assert await get(cluster, "/healthz") == (200, {"status": "ok"})
    assert await get(cluster, "/readyz") == (200, {"status": "ready"})


async def test_the_index_names_the_routes_and_head_sends_no_body(cluster: Cluster) -> None:
    async with aiohttp.ClientSession() as session:
        async with session.get(cluster.url + "/") as answer:
            assert "/v1/chat/completions" in await answer.text()
        async with session.head(cluster.url + "/healthz") as answer:
            assert (answer.status, await answer.read()) == (200, b"")


async def test_metrics_count_requests_by_route_and_never_by_what_a_caller_made_up(cluster: Cluster) -> None:
    await ask(cluster, "echo")
    await ask(cluster, "made-up-model")
    await get(cluster, "/v1/models/vendor/echo.v2")
    async with aiohttp.ClientSession() as session:
        async with session.get(cluster.url + "/made-up-path") as answer:
            assert answer.status == 404
        async with session.get(cluster.url + "/metrics") as answer:
            assert answer.content_type == "text/plain"
            text = await answer.text()
    assert (
        'orchestra_gateway_requests_total{protocol="http",route="/v1/chat/completions",status="200"}' in text
    )
    assert 'route="/v1/models/{model}",status="200"' in text
    assert 'route="other",status="404"' in text
    assert "orchestra_gateway_answer_seconds_bucket" in text
    assert "made-up" not in text


async def test_without_any_node_every_question_says_what_is_missing_and_how_to_start_one() -> None:
    with running_cluster([]) as empty:
        status, said = await get(empty, "/readyz")
        assert (status, said["missing"]) == (503, ["no node that serves a model is alive"])
        for model in ("echo", "orchestra/maestro"):
            status, said = await ask(empty, model)
            assert (status, said["error"]["code"]) == (503, "no_node")
            assert "orchestra node" in said["error"]["message"]
        assert (await get(empty, "/v1/models"))[1]["data"] == []
        assert (await get(empty, "/healthz"))[0] == 200


async def test_a_model_whose_last_node_left_is_distinguished_from_an_unknown_one() -> None:
    backends = [
        ("leaver", EchoBackend(EchoSettings(models=("gone",)))),
        ("stayer", EchoBackend(EchoSettings(models=("here",)))),
    ]
    with running_cluster(backends) as own:
        own.call(own.nodes["leaver"].leave())
        own.wait(lambda: len(own.running.gateway.registry.nodes) == 1)
        status, said = await ask(own, "gone")
        assert (status, said["error"]["code"]) == (503, "no_node")
        assert "'gone'" in said["error"]["message"]
        status, said = await ask(own, "never")
        assert (status, said["error"]["code"]) == (404, "unknown_model")
