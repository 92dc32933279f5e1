"""Breakers: seen in every process, held open by an order, and reset."""

from __future__ import annotations

from typing import Any

import aiohttp

from orchestration.log_events import LogEvent
from orchestration.placement import Outcome
from tests.fixtures.admin import Operator
from tests.fixtures.cluster import Cluster


async def ask(cluster: Cluster, model: str) -> str:
    """The node that answered."""
    body = {"model": model, "messages": [{"role": "user", "content": "a"}]}
    async with aiohttp.ClientSession(cluster.url) as http:
        async with http.post("/v1/chat/completions", json=body) as answer:
            assert answer.status == 200
            return str((await answer.json())["orchestra"]["node"])


async def breaker(operator: Operator, name: str, **more: Any) -> Any:
    page = await operator.call("breakers.list", **more)
    return next((each for each in page["data"] if each["name"] == name), None)


async def test_a_breaker_held_open_keeps_generations_off_a_node_until_it_is_reset(
    cluster: Cluster, operator: Operator, records: list[LogEvent]
) -> None:
    held = await operator.call("breakers.hold", model="echo", node="n1", reason="noisy fan")
    assert held["held_open"]["reason"] == "noisy fan"
    found = await breaker(operator, "echo on n1")
    assert {state["part"] for state in found["states"]} == {"direct", "dispatcher"}
    assert {state["state"] for state in found["states"]} == {"open"}
    assert {await ask(cluster, "echo") for _ in range(10)} == {"n2"}
    await operator.call("breakers.hold", model="echo", node="n1")
    closed = await operator.call("breakers.reset", model="echo", node="n1")
    assert closed["released"] == ["echo on n1"]
    assert await breaker(operator, "echo on n1") is None
    await operator.call("breakers.hold", model="echo", node="n2")
    assert {await ask(cluster, "echo") for _ in range(10)} == {"n1"}
    await operator.call("breakers.reset", model="echo")
    assert [(each.data["action"], each.node) for each in records] == [
        ("breakers.hold", "n1"),
        ("breakers.reset", "n1"),
        ("breakers.hold", "n2"),
        ("breakers.reset", ""),
    ]


async def test_a_breaker_that_failures_have_opened_is_reset(cluster: Cluster, operator: Operator) -> None:
    chooser = cluster.running.direct.executor.placer.chooser

    async def fail() -> None:
        for _ in range(50):
            chooser.ended("echo", "n2", Outcome.FAILED, cluster.loop.time())

    cluster.call(fail())
    found = await breaker(operator, "echo on n2")
    assert "open" in {state["state"] for state in found["states"]}
    answer = await operator.call("breakers.reset", node="n2")
    assert list(answer["closed"].values()) == [["echo on n2"]]
    assert await breaker(operator, "echo on n2") is None
    assert (await breaker(operator, "echo on n2", closed="true"))["states"]


async def test_a_breaker_of_a_model_that_the_node_does_not_serve_is_not_held(operator: Operator) -> None:
    status, message = await operator.refused("breakers.hold", model="echo", node="paced")
    assert status == 404
    assert message == "no node 'paced' with model 'echo'; there are: n1, n2"
    status, message = await operator.refused("breakers.hold", model="nope", node="n1")
    assert (status, message) == (404, "no model 'nope'; known models: echo, one, slow")
    assert (await operator.refused("breakers.reset"))[0] == 400
