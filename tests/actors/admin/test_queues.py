"""Queues: depth and age, pause and resume, and purge with a confirmation."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import aiohttp
import pytest

from orchestration.log_events import LogEvent
from tests.fixtures.admin import Operator
from tests.fixtures.cluster import Cluster
from tests.fixtures.eventually import eventually
from tests.fixtures.log_events import recorded_events


def chat(model: str, text: str = "a b c") -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": text}]}


async def post(cluster: Cluster, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    async with aiohttp.ClientSession(cluster.url) as http, http.post(path, json=body) as answer:
        return answer.status, await answer.json()


async def ask(cluster: Cluster, model: str) -> tuple[int, Any]:
    return await post(cluster, "/v1/chat/completions", chat(model))


async def queue(operator: Operator, name: str) -> Any:
    page = await operator.call("queues.list")
    return next(each for each in page["data"] if each["name"] == name)


async def waits(operator: Operator, name: str, number: int) -> None:
    async def there() -> bool:
        return bool((await queue(operator, name))["waiting"] == number)

    await eventually(there)


@pytest.mark.parametrize(("name", "model"), [("generations/echo", "echo"), ("runs", "orchestra/single")])
async def test_a_paused_queue_keeps_what_is_accepted_until_it_is_resumed(
    cluster: Cluster, operator: Operator, records: list[LogEvent], name: str, model: str
) -> None:
    assert (await ask(cluster, model))[0] == 200
    state = await operator.call("queues.pause", queue=name, reason="a test")
    assert state["paused"]["reason"] == "a test"
    asked = asyncio.ensure_future(ask(cluster, model))
    try:
        await waits(operator, name, 1)
        assert (await queue(operator, name))["oldest_age_s"] >= 0
        assert not asked.done()
        again = await operator.call("queues.pause", queue=name, reason="once more")
        assert again["paused"]["reason"] == "a test"
    finally:
        resumed = await operator.call("queues.resume", queue=name)
    assert resumed["paused"] is None
    assert (await asked)[0] == 200
    assert [(each.data["action"], each.data["target"]) for each in records] == [
        ("queues.pause", name),
        ("queues.resume", name),
    ]
    assert records[0].data["before"] == {"paused": None}
    assert records[0].data["after"]["paused"]["reason"] == "a test"


async def test_no_generation_of_a_paused_model_takes_the_direct_path(
    cluster: Cluster, operator: Operator
) -> None:
    await operator.call("queues.pause", queue="generations/echo")
    asked = [asyncio.ensure_future(ask(cluster, "echo")) for _ in range(5)]
    try:
        await waits(operator, "generations/echo", 5)
        assert cluster.running_on("n1") + cluster.running_on("n2") == 0
        assert (await ask(cluster, "slow"))[0] == 200
    finally:
        await operator.call("queues.resume", queue="generations/echo")
    assert {status for status, _ in await asyncio.gather(*asked)} == {200}


async def test_a_purge_without_confirmation_only_counts(cluster: Cluster, operator: Operator) -> None:
    await operator.call("queues.pause", queue="generations/echo")
    asked = asyncio.ensure_future(ask(cluster, "echo"))
    try:
        await waits(operator, "generations/echo", 1)
        counted = await operator.call("queues.purge", queue="generations/echo")
        assert (counted["waiting"], counted["purged"]) == (1, 0)
        assert not asked.done()
        status, message = await operator.refused("queues.purge", queue="runs", confirm=counted["confirm"])
        assert status == 409
        assert "not one for queue 'runs'" in message
        status, _ = await operator.refused("queues.purge", queue="generations/echo", confirm="yes")
        assert status == 409
    finally:
        await operator.call("queues.resume", queue="generations/echo")
    assert (await asked)[0] == 200


@pytest.mark.parametrize(("name", "model"), [("generations/echo", "echo"), ("runs", "orchestra/single")])
async def test_a_purge_ends_what_was_counted_and_nothing_that_came_later(
    cluster: Cluster, operator: Operator, records: list[LogEvent], name: str, model: str
) -> None:
    await operator.call("queues.pause", queue=name)
    later = None
    try:
        first = [asyncio.ensure_future(ask(cluster, model)) for _ in range(3)]
        await waits(operator, name, 3)
        counted = await operator.call("queues.purge", queue=name)
        later = asyncio.ensure_future(ask(cluster, model))
        await waits(operator, name, 4)
        records.clear()
        purged = await operator.call(
            "queues.purge", queue=name, confirm=counted["confirm"], reason="wrong prompt"
        )
        assert purged["purged"] == 3
        for status, body in await asyncio.gather(*first):
            assert status == 499
            assert body["error"]["code"] == "cancelled_by_operator"
            assert body["error"]["message"].endswith(": wrong prompt")
        again = await operator.call("queues.purge", queue=name, confirm=counted["confirm"])
        assert again["purged"] == 0
        assert [each.data["after"]["purged"] for each in records] == [3]
    finally:
        await operator.call("queues.resume", queue=name)
    assert later is not None
    assert (await later)[0] == 200


async def test_a_purge_ends_what_waits_at_dispatchers_and_leaves_what_runs(
    cluster: Cluster, operator: Operator
) -> None:
    with recorded_events() as events:
        await _purge_at_dispatchers(cluster, operator)
    ends = [each for each in events if each.name == "generation.ended" and not each.node]
    assert [each.data["outcome"] for each in ends] == ["cancelled_by_operator"] * 4
    requests = {each.run: each.data for each in events if each.name == "request.ended"}
    for each in ends:
        assert each.model == "one"
        assert 0 < each.data["queue_s"] < requests[each.run]["duration_s"]
        assert requests[each.run]["error"] == "cancelled_by_operator"


async def test_what_is_purged_before_any_dispatcher_had_it_tells_how_long_it_waited(
    cluster: Cluster, operator: Operator
) -> None:
    await operator.call("queues.pause", queue="generations/echo")
    try:
        with recorded_events() as events:
            asked = asyncio.ensure_future(ask(cluster, "echo"))
            await waits(operator, "generations/echo", 1)
            counted = await operator.call("queues.purge", queue="generations/echo")
            await operator.call("queues.purge", queue="generations/echo", confirm=counted["confirm"])
            assert (await asked)[0] == 499
        (end,) = [each for each in events if each.name == "generation.ended"]
        (request,) = [each for each in events if each.name == "request.ended" and each.run == end.run]
        assert end.data["outcome"] == "cancelled_by_operator"
        assert 0 < end.data["queue_s"] < request.data["duration_s"]
    finally:
        await operator.call("queues.resume", queue="generations/echo")


async def _purge_at_dispatchers(cluster: Cluster, operator: Operator) -> None:
    first = asyncio.ensure_future(ask(cluster, "one"))
    await eventually(lambda: cluster.running_on("single") == 1)
    others = [asyncio.ensure_future(ask(cluster, "one")) for _ in range(4)]
    await waits(operator, "generations/one", 4)
    counted = await operator.call("queues.purge", queue="generations/one")
    assert counted["waiting"] == 4
    purged = await operator.call("queues.purge", queue="generations/one", confirm=counted["confirm"])
    assert purged["purged"] == 4
    for status, body in await asyncio.gather(*others):
        assert (status, body["error"]["code"]) == (499, "cancelled_by_operator")
    assert (await first)[0] == 200
    assert await queue(operator, "generations/one") == {
        "name": "generations/one",
        "waiting": 0,
        "running": 0,
        "waiting_by_priority": {"interactive": 0, "standard": 0, "batch": 0},
        "oldest_age_s": None,
        "paused": None,
    }


async def test_a_purged_job_ends_as_cancelled_with_the_reason(cluster: Cluster, operator: Operator) -> None:
    await operator.call("queues.pause", queue="runs")
    try:
        status, job = await post(cluster, "/v1/jobs", chat("echo"))
        assert status == 202
        await waits(operator, "runs", 1)
        counted = await operator.call("queues.purge", queue="runs")
        await operator.call("queues.purge", queue="runs", confirm=counted["confirm"], reason="too many")
        async with aiohttp.ClientSession(cluster.url) as http, http.get(f"/v1/jobs/{job['id']}") as answer:
            ended = await answer.json()
        assert ended["status"] == "cancelled"
        assert ended["error"]["message"].endswith("too many")
    finally:
        with suppress(AssertionError):
            await operator.call("queues.resume", queue="runs")


async def test_a_queue_that_does_not_exist_is_named(cluster: Cluster, operator: Operator) -> None:
    for name in ("generations/none", "echo", "webhooks"):
        for operation in ("queues.pause", "queues.resume", "queues.purge"):
            status, message = await operator.refused(operation, queue=name)
            assert status == 404
            assert (
                f"no queue '{name}'; there are: generations/echo, generations/one, generations/slow, runs"
                in message
            )
