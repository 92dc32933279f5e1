"""Publishing events: nothing is lost that fits, nothing is doubled, and what is lost is told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from actors.bus.bus import Bus, BusSettings
from actors.bus.declarations import shipped_declaration
from actors.bus.provision import apply_when_ready, call_api
from actors.bus.subjects import LogSubject
from actors.logs.event_form import encoded_event, subject_of
from actors.logs.publisher import LogPublisher
from actors.logs.settings import LogsSettings
from actors.telemetry.event_log import EventLog
from actors.telemetry.identity import ProcessIdentity
from orchestration.log_events import LogEvent, LogLevel
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats
from tests.fixtures.proxy import Proxy, proxy_to


@pytest.fixture
async def log_bus(own_nats: RunningNats) -> AsyncIterator[Bus]:
    bus = await Bus.connect(BusSettings(url=own_nats.url), name="test")
    await apply_when_ready(bus, shipped_declaration())
    yield bus
    await bus.close()


def new_log(role: str = "gateway") -> EventLog:
    source = EventLog()
    source.identity = ProcessIdentity(role=role, id=f"{role}-test", host="here", pid=1)
    return source


async def stored_events(bus: Bus) -> list[dict[str, Any]]:
    """All events in the stream, in order."""
    last = (await call_api(bus, "STREAM.INFO.LOGS"))["state"]["last_seq"]
    found = []
    for seq in range(1, last + 1):
        answer = await bus.request("$JS.API.DIRECT.GET.LOGS", json.dumps({"seq": seq}).encode())
        found.append(json.loads(answer.data))
    return found


async def test_an_event_reaches_the_stream_under_a_subject_of_its_fields(log_bus: Bus) -> None:
    source = new_log()
    publisher = LogPublisher(log_bus, LogsSettings(flush_s=0.01), source)
    await publisher.start()
    source.record("run.ended", run="c.1", trace="ab" * 16, caller="Ann B.", data={"duration_s": 1.5})
    await publisher.stop()
    (event,) = await stored_events(log_bus)
    assert event["name"] == "run.ended"
    assert event["process"] == "gateway-test"
    assert event["data"] == {"duration_s": 1.5}
    info = await call_api(log_bus, "STREAM.INFO.LOGS", {"subjects_filter": ">"})
    (subject,) = info["state"]["subjects"]
    assert subject.startswith(f"logs.info.run.Ann_20B_2e.15.c_2e1.{'ab' * 16}.")


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"caller": "Ann B.", "run": "c.1", "trace": "ab" * 16},
        {"run": "r" * 100},
        {"trace": "no trace"},
        {"caller": "-", "run": "-", "trace": "-"},
        {"caller": "ü.*>"},
    ],
)
def test_readers_find_an_event_by_each_of_its_fields(fields: dict[str, str]) -> None:
    event = LogEvent(id="x/1", at=1.0, name="run.ended", level=LogLevel.ERROR, **fields)
    tokens = subject_of(event).split(".")
    wanted = LogSubject(level="error", kind="run", **fields)
    assert tokens[:-1] == wanted.subject.split(".")[:-1]
    for name, value in {"level": "error", "kind": "run", **fields}.items():
        pattern = LogSubject(**{name: value}).filter.split(".")
        assert all(part in ("*", token) for part, token in zip(pattern, tokens, strict=True)), name


async def test_events_wait_while_nats_is_away_and_none_is_lost_or_doubled(
    own_nats: RunningNats, log_bus: Bus
) -> None:
    source = new_log()
    async with proxy_to(own_nats.port) as proxy:
        bus = await Bus.connect(BusSettings(url=proxy.url), name="test")
        publisher = LogPublisher(bus, LogsSettings(flush_s=0.001), source)
        await publisher.start()
        await _record_through_cuts(source, proxy, bus)
        await bus.wait_connected(10)
        await eventually(lambda: publisher.pending == 0)
        await publisher.stop()
        await bus.close()
    ids = [event["id"] for event in await stored_events(log_bus)]
    assert len(ids) == 500
    assert len(set(ids)) == 500


async def _record_through_cuts(source: EventLog, proxy: Proxy, bus: Bus) -> None:
    for number in range(500):
        source.record("run.started", run=f"c.{number}")
        if number % 100 == 50:
            proxy.cut()
        await asyncio.sleep(0)


async def test_a_flood_is_bounded_counted_and_told_as_a_gap(own_nats: RunningNats, log_bus: Bus) -> None:
    source = new_log()
    publisher = LogPublisher(log_bus, LogsSettings(flush_s=0.01, buffer_events=50), source)
    await publisher.start()
    for number in range(1_000):
        source.record("run.started", run=f"c.{number}")
    assert publisher.pending == 50
    await eventually(lambda: publisher.pending == 0)
    await publisher.stop()
    found = await stored_events(log_bus)
    assert [event["run"] for event in found if event["name"] == "run.started"] == [
        f"c.{number}" for number in range(50)
    ]
    (gap,) = (event for event in found if event["name"] != "run.started")
    assert gap["name"] == "log.gap"
    assert gap["data"]["count"] == 950
    assert gap["data"]["first_at"] <= gap["data"]["last_at"]


async def test_an_event_of_10_mb_is_cut_and_says_so(log_bus: Bus) -> None:
    source = new_log()
    publisher = LogPublisher(log_bus, LogsSettings(flush_s=0.01), source)
    await publisher.start()
    source.record("record.error", message="x" * 10_000_000, data={"a": "ä" * 10_000_000, "b": [1] * 10})
    source.record("record.error", message="nested", data={"deep": {"list": ["y" * 1_000] * 10_000}})
    await publisher.stop()
    first, second = await stored_events(log_bus)
    assert "cut: 16384 of 10000000 characters" in first["message"]
    assert first["data"]["cut"] is True
    assert second["data"] == {"cut": True}


def test_an_event_that_json_cannot_say_is_refused() -> None:
    event = LogEvent(id="1", at=1.0, name="record.error", message="half \ud800 pair")
    with pytest.raises(ValueError, match="cannot be encoded"):
        encoded_event(event, 65_536)


def test_a_subject_has_no_more_than_its_tokens_whatever_the_names() -> None:
    event = LogEvent(id="1", at=1.0, name="run.ended", caller="a.b > *\n" + "é" * 500, run=" ", trace="")
    subject = subject_of(event)
    assert subject.count(".") == 7
    assert ".-._20.-." in subject
    assert len(subject) < 600
