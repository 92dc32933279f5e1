"""The cache of responses: seen and cleared at all gateways, and what operators do with patterns."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from actors.gateway.admission_settings import CallerSettings
from actors.gateway.settings import GatewaySettings
from orchestration.log_events import LogEvent
from tests.fixtures.admin import Operator
from tests.fixtures.cluster import Cluster, running_cluster

SETTINGS = GatewaySettings(
    http="127.0.0.1:0",
    callers={
        "alice": CallerSettings(key="key-of-alice"),
        "bob": CallerSettings(key="key-of-bob"),
        "olga": CallerSettings(key="key-of-olga", scopes=("admin",)),
    },
)


@pytest.fixture(scope="module")
def cluster() -> Any:
    backend = EchoBackend(EchoSettings(models=("one", "two")))
    with running_cluster([("n1", backend)], gateway=SETTINGS, agents=True) as running:
        yield running


@pytest.fixture(params=("http", "nats"))
def operator(cluster: Cluster, request: pytest.FixtureRequest) -> Operator:
    return Operator(cluster, request.param, key="key-of-olga")


async def origin(cluster: Cluster, model: str, caller: str = "alice") -> str:
    """Where the response came from: hit, shared or miss."""
    body = {"model": model, "messages": [{"role": "user", "content": "a"}], "temperature": 0}
    headers = {"Authorization": f"Bearer key-of-{caller}"}
    async with aiohttp.ClientSession(cluster.url, headers=headers) as http:
        async with http.post("/v1/chat/completions", json=body) as answer:
            assert answer.status == 200, await answer.text()
            return answer.headers["X-Orchestra-Cache"]


async def fill(cluster: Cluster) -> None:
    for model in ("one", "two"):
        for caller in ("alice", "bob"):
            await origin(cluster, model, caller)
            assert await origin(cluster, model, caller) == "hit"


async def origins(cluster: Cluster) -> list[str]:
    return [await origin(cluster, model, caller) for model in ("one", "two") for caller in ("alice", "bob")]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"model": "one"}, ["miss", "miss", "hit", "hit"]),
        ({"namespace": "alice"}, ["miss", "hit", "miss", "hit"]),
        ({"model": "two", "namespace": "bob"}, ["hit", "hit", "hit", "miss"]),
        ({}, ["miss", "miss", "miss", "miss"]),
    ],
)
async def test_what_was_cleared_is_generated_again_and_nothing_else(
    cluster: Cluster,
    operator: Operator,
    records: list[LogEvent],
    fields: dict[str, str],
    expected: list[str],
) -> None:
    await fill(cluster)
    await operator.call("cache.clear", **fields, reason="a test")
    assert await origins(cluster) == expected
    assert await origins(cluster) == ["hit"] * 4
    assert [each.data["reason"] for each in records] == ["a test"]


async def test_the_cache_is_seen_and_is_empty_after_a_clear_of_all(
    cluster: Cluster, operator: Operator
) -> None:
    await fill(cluster)
    shown = await operator.call("cache.show")
    (gateway,) = shown["gateways"]
    assert gateway["entries"] >= 4
    assert gateway["requests"]["hit"] >= 4
    assert shown["shared"]["entries"] >= 4
    await operator.call("cache.clear")
    shown = await operator.call("cache.show")
    assert (shown["gateways"][0]["entries"], shown["shared"]["entries"]) == (0, 0)


async def test_requests_for_a_disabled_pattern_are_refused_with_the_reason(
    cluster: Cluster, operator: Operator, records: list[LogEvent]
) -> None:
    await operator.call("patterns.disable", pattern="debate", reason="too dear")
    body = {"model": "orchestra/debate", "messages": [{"role": "user", "content": "a"}]}
    headers = {"Authorization": "Bearer key-of-alice"}
    async with aiohttp.ClientSession(cluster.url, headers=headers) as http:
        async with http.post("/v1/chat/completions", json=body) as answer:
            assert answer.status == 403
            error = (await answer.json())["error"]
    assert error["message"] == "an operator has disabled the pattern 'debate': too dear"
    listed = (await operator.call("patterns.list"))["data"]
    assert [each["name"] for each in listed if each["disabled"]] == ["debate"]
    await operator.call("patterns.enable", pattern="debate")
    await operator.call("patterns.enable", pattern="debate")
    assert [each.data["action"] for each in records] == ["patterns.disable", "patterns.enable"]
    assert (await operator.refused("patterns.disable", pattern="none"))[0] == 404
