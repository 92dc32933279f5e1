"""The log over the admin API: pages without bodies, one event, runs that have ended, and usage."""

from __future__ import annotations

import time
from typing import Any

import pytest

from actors.bus.bus import Bus, BusSettings
from actors.bus.jetstream import enqueue
from actors.logs.event_form import encoded_event, subject_of
from orchestration.log_events import LogEvent
from tests.fixtures.admin import Operator
from tests.fixtures.cluster import Cluster
from tests.fixtures.log_events import recorded_events


async def store(cluster: Cluster, *events: LogEvent) -> None:
    bus = await Bus.connect(BusSettings(url=cluster.nats.url), name="test")
    for event in events:
        await enqueue(bus, subject_of(event), encoded_event(event, 65_536), {})
    await bus.close()


def request(number: int, caller: str, **data: Any) -> LogEvent:
    data = {"status": 200, "input_tokens": 10, "output_tokens": number, "cached_tokens": 1} | data
    return LogEvent(
        id=f"u/{caller}/{number}", at=time.time(), name="request.ended", caller=caller, model="m", data=data
    )


@pytest.fixture
async def stored(cluster: Cluster) -> Cluster:
    events = [request(number, "usage-alice") for number in range(1, 6)]
    events += [request(7, "usage-bob", cache="hit"), request(8, "usage-bob", status=502)]
    ended = {"duration_s": 1.5, "tokens": 12}
    events.append(
        LogEvent(id="r/1", at=time.time(), name="run.ended", run="r.1", caller="usage-bob", data=ended)
    )
    await store(cluster, *events)
    return cluster


async def test_usage_sums_requests_by_caller_and_model(stored: Cluster, operator: Operator) -> None:
    before = (await operator.call("usage.show", caller="usage-alice"))["data"][0]
    assert (before["input_tokens"] % 50, before["output_tokens"] % 15) == (0, 0)
    shown = await operator.call("usage.show", caller="usage-bob")
    assert shown["complete"]
    (row,) = shown["data"]
    assert (row["model"], row["from_cache"] * 2, row["failed"] * 2) == ("m", row["requests"], row["requests"])
    assert row["output_tokens"] == 8 * row["failed"]


async def test_the_log_is_read_in_pages_without_bodies_and_one_event_with_it(
    stored: Cluster, operator: Operator
) -> None:
    page = await operator.call("logs.list", caller="usage-alice", kinds="request", limit=3)
    assert [event["name"] for event in page["data"]] == ["request.ended"] * 3
    assert all("data" not in event for event in page["data"])
    rest = await operator.call("logs.list", caller="usage-alice", limit=3, before=page["next"])
    numbers = [event["number"] for event in (*page["data"], *rest["data"])]
    assert numbers == sorted(set(numbers), reverse=True)
    event = await operator.call("logs.show", number=numbers[0])
    assert event["data"]["output_tokens"] == 5
    assert (await operator.refused("logs.show", number=10**9))[0] == 404
    assert (await operator.refused("logs.list", kinds="nothing"))[0] == 400


async def test_runs_that_have_ended_are_listed(stored: Cluster, operator: Operator) -> None:
    ended = (await operator.call("runs.ended", caller="usage-bob"))["data"]
    assert (ended[0]["run"], ended[0]["data"]["tokens"]) == ("r.1", 12)


async def test_what_operators_ask_leaves_no_event_unless_it_fails(operator: Operator) -> None:
    with recorded_events() as events:
        await operator.call("nodes.list")
        assert [event.name for event in events if event.name == "request.ended"] == []
