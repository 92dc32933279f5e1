"""Runs of any caller: listed, shown, and cancelled one by one or by a filter."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest

from actors.backends.echo import EchoBackend, EchoSettings
from orchestration.log_events import LogEvent
from tests.fixtures.admin import Operator
from tests.fixtures.cluster import Cluster, running_cluster
from tests.fixtures.eventually import eventually

LONG = " ".join(["word"] * 200)
PATTERN = "orchestra/single"


@pytest.fixture(scope="module")
def cluster() -> Any:
    """`slow` says 20 words a second."""
    with running_cluster(
        [("paced", EchoBackend(EchoSettings(models=("slow",), speed=20)))], agents=True
    ) as c:
        yield c


async def post(cluster: Cluster, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    async with aiohttp.ClientSession(cluster.url) as http, http.post(path, json=body) as answer:
        return answer.status, await answer.json()


def chat(model: str) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": LONG}]}


def begin(cluster: Cluster, model: str = PATTERN) -> asyncio.Task[tuple[int, Any]]:
    return asyncio.ensure_future(post(cluster, "/v1/chat/completions", chat(model)))


async def runs(operator: Operator, number: int, **wanted: Any) -> list[Any]:
    """The runs at work, once there are that many."""
    found: list[Any] = []

    async def there() -> bool:
        page = await operator.call("runs.list", **wanted)
        found[:] = page["data"]
        return len(found) == number

    await eventually(there)
    return found


async def test_a_run_is_listed_shown_and_cancelled_and_its_caller_is_told_why(
    cluster: Cluster, operator: Operator, records: list[LogEvent]
) -> None:
    asked = begin(cluster)
    (run,) = await runs(operator, 1)
    assert (run["kind"], run["pattern"], run["caller"]) == ("run", "single", "anonymous")
    shown = await operator.call("runs.inspect", id=run["id"])
    assert shown["events"][0]["type"] == "started"
    cancelled = await operator.call("runs.cancel", id=run["id"], reason="too long")
    assert cancelled == {"id": run["id"], "was": "running", "cancelled": True}
    status, body = await asked
    assert (status, body["error"]["code"]) == (499, "cancelled_by_operator")
    assert body["error"]["message"].startswith(f"run {run['id']} was cancelled by an operator (")
    assert body["error"]["message"].endswith("): too long")
    await runs(operator, 0)
    assert [(each.run, each.data["after"]) for each in records] == [(run["id"], {"state": "cancelled"})]


async def test_a_run_that_waits_is_cancelled_too(cluster: Cluster, operator: Operator) -> None:
    await operator.call("queues.pause", queue="runs")
    try:
        asked = begin(cluster)

        def waits() -> bool:
            return bool(cluster.running.gateway.runs)

        await eventually(waits)
        (run_id,) = cluster.running.gateway.runs
        cancelled = await operator.call("runs.cancel", id=run_id, reason="wrong")
        assert cancelled["cancelled"]
        status, body = await asked
        assert (status, body["error"]["code"]) == (499, "cancelled_by_operator")
    finally:
        await operator.call("queues.resume", queue="runs")
    assert (await operator.call("runs.list"))["data"] == []


async def test_a_job_is_cancelled_whether_it_runs_or_waits(cluster: Cluster, operator: Operator) -> None:
    _, job = await post(cluster, "/v1/jobs", chat(PATTERN))
    await runs(operator, 1)
    await operator.call("runs.cancel", id=job["id"], reason="no need")
    await operator.call("queues.pause", queue="runs")
    try:
        _, waiting = await post(cluster, "/v1/jobs", chat(PATTERN))
        cancelled = await operator.call("runs.cancel", id=waiting["id"], reason="no need")
        assert cancelled["was"] == "queued"
        again = await operator.call("runs.cancel", id=waiting["id"])
        assert again["was"] == "ended"
    finally:
        await operator.call("queues.resume", queue="runs")
    for each in (job, waiting):

        async def ended(job_id: str = each["id"]) -> bool:
            found = await operator.call("jobs.get", id=job_id)
            assert found["status"] in ("running", "cancelled")
            return bool(found["status"] == "cancelled" and found["error"]["message"].endswith("no need"))

        await eventually(ended)
    listed = await operator.call("jobs.list", limit=2)
    assert {each["id"] for each in listed["data"]} == {job["id"], waiting["id"]}


async def test_runs_are_cancelled_by_a_filter_after_a_dry_run(
    cluster: Cluster, operator: Operator, records: list[LogEvent]
) -> None:
    asked = [begin(cluster), begin(cluster), begin(cluster, "orchestra/ensemble")]
    await runs(operator, 3)
    page = await operator.call("runs.list", limit=2)
    assert len(page["data"]) == 2
    rest = await operator.call("runs.list", limit=2, after=page["next"])
    assert (len(rest["data"]), rest["next"]) == (1, "")
    wanted = {"pattern": "single", "reason": "a flood"}
    tried = await operator.call("runs.cancel_matching", **wanted, dry_run=True)
    assert (tried["count"], tried["dry_run"]) == (2, True)
    assert not records
    done = await operator.call("runs.cancel_matching", **wanted)
    assert done["count"] == 2
    answers = await asyncio.gather(*asked[:2])
    assert {body["error"]["code"] for _, body in answers} == {"cancelled_by_operator"}
    (left,) = await runs(operator, 1)
    assert left["pattern"] == "ensemble"
    assert [len(each.data["after"]["cancelled"]) for each in records] == [2]
    await operator.call("runs.cancel_matching", everything=True, reason="end of the test")
    assert (await asked[2])[0] == 499


async def test_bulk_cancel_needs_a_reason_and_a_filter(operator: Operator) -> None:
    status, message = await operator.refused("runs.cancel_matching", pattern="single")
    assert status == 400
    assert "reason" in message
    assert await operator.refused("runs.cancel_matching", reason="all") == (
        400,
        "name a pattern, model, caller or age, or set `everything`",
    )


async def test_a_run_that_is_not_there_is_not_found(operator: Operator) -> None:
    for name in ("runs.cancel", "runs.inspect"):
        for run_id in ("abc.1", "job.000000000000000000000000", "*.*", "nothing"):
            status, message = await operator.refused(name, id=run_id)
            assert status == 404
            assert run_id in message


async def test_a_request_to_a_model_is_cancelled_by_its_id(cluster: Cluster, operator: Operator) -> None:
    async with aiohttp.ClientSession(cluster.url) as http:
        async with http.post("/v1/chat/completions", json=chat("slow") | {"stream": True}) as answer:
            await answer.content.readline()
            run_id = answer.headers["X-Orchestra-Run"]
            await operator.call("runs.cancel", id=run_id, reason="enough")
            text = (await answer.content.read()).decode()
    assert "cancelled_by_operator" in text
    await eventually(lambda: cluster.running_on("paced") == 0)


async def test_an_operator_follows_the_events_of_a_run(cluster: Cluster) -> None:
    operator = Operator(cluster)
    asked = begin(cluster)
    (run,) = await runs(operator, 1)
    async with aiohttp.ClientSession(cluster.url) as http:
        async with http.get(f"/admin/runs/{run['id']}/events") as answer:
            assert answer.status == 200
            await operator.call("runs.cancel", id=run["id"])
            text = (await answer.content.read()).decode()
    assert "event: started" in text
    assert "event: ended" in text
    assert (await asked)[0] == 499
