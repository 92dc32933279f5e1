"""Reading the log from its stream: pages of every filter, one event, and following."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator

import pytest

from actors.bus.bus import Bus, BusSettings
from actors.bus.provision import call_api
from actors.logs.filter import LogFilter
from actors.logs.reader import LogReader, StoredEvent
from orchestration.errors import InvalidRequest
from orchestration.log_events import LogEvent, LogKind, LogLevel
from tests.fixtures.eventually import eventually
from tests.fixtures.log_stream import last_sequence, logs_bus, store
from tests.fixtures.nats import RunningNats, module_nats
from tests.fixtures.proxy import proxy_to

__all__ = ["module_nats"]

EVENTS = 3_000
NAMES = ("request.ended", "run.started", "run.ended", "step.ended", "record.warning")
LEVELS = (LogLevel.INFO,) * 60 + (LogLevel.WARNING,) * 3 + (LogLevel.ERROR,)


def events_of_a_day() -> list[LogEvent]:
    draw = random.Random(7)
    return [
        LogEvent(
            id=f"e{number}",
            at=1_000.0 + number,
            name=draw.choice(NAMES),
            level=draw.choice(LEVELS),
            run=f"c.{number // 5}",
            trace=f"{number // 7:032x}",
            caller=f"caller {number % 13}",
            model=draw.choice(("a", "b")),
            node=f"n{number % 3}",
        )
        for number in range(EVENTS)
    ]


@pytest.fixture
async def bus(nats: RunningNats) -> AsyncIterator[Bus]:
    """The stream has `events_of_a_day`, stored once for the module."""
    bus = await logs_bus(nats.url)
    if not await last_sequence(bus):
        await store(bus, *events_of_a_day())
        await eventually(lambda: _is_full(bus))
    yield bus
    await bus.close()


async def _is_full(bus: Bus) -> bool:
    return await last_sequence(bus) == EVENTS


FILTERS = [
    LogFilter(),
    LogFilter(level=LogLevel.WARNING),
    LogFilter(level=LogLevel.ERROR),
    LogFilter(caller="caller 7"),
    LogFilter(caller="caller 7", level=LogLevel.ERROR),
    LogFilter(kinds=(LogKind.RUN, LogKind.RECORD)),
    LogFilter(kinds=(LogKind.RUN, LogKind.RECORD, LogKind.STEP), level=LogLevel.WARNING),
    LogFilter(run="c.77"),
    LogFilter(run="c.77", level=LogLevel.WARNING),
    LogFilter(trace=f"{100:032x}"),
    LogFilter(model="b", node="n1"),
    LogFilter(since=2_500.0),
    LogFilter(since=1_500.0, until=1_700.0, caller="caller 1"),
    LogFilter(until=1_100.0),
    LogFilter(run="nothing"),
    LogFilter(caller="nobody"),
]


@pytest.mark.parametrize("wanted", FILTERS, ids=str)
async def test_pages_have_every_matching_event_once_the_newest_first(bus: Bus, wanted: LogFilter) -> None:
    expected = [event.id for event in reversed(events_of_a_day()) if wanted.matches(event)]
    reader, before, found = LogReader(bus), None, []
    while True:
        page = await reader.page(wanted, limit=100, before=before)
        assert len(page.events) <= 100
        found += [stored.event.id for stored in page.events]
        before = page.before
        if before is None:
            break
    assert found == expected


async def test_a_first_page_is_full_where_enough_match(bus: Bus) -> None:
    page = await LogReader(bus).page(LogFilter(level=LogLevel.ERROR), limit=10)
    assert len(page.events) == 10
    assert page.before is not None


async def test_a_story_is_in_the_order_of_time(bus: Bus) -> None:
    story = await LogReader(bus).story(LogFilter(run="c.77"))
    assert [stored.event.id for stored in story] == [f"e{number}" for number in range(385, 390)]


async def test_one_event_is_found_by_its_place(bus: Bus) -> None:
    reader = LogReader(bus)
    found = await reader.one(42)
    assert found is not None
    assert found.event.id == "e41"
    assert await reader.one(10**9) is None


@pytest.mark.parametrize("limit", [0, -1, 1_001])
async def test_a_limit_out_of_range_is_refused(bus: Bus, limit: int) -> None:
    with pytest.raises(InvalidRequest, match="between 1 and 1000"):
        await LogReader(bus).page(LogFilter(), limit=limit)


async def test_a_fact_that_was_stored_twice_is_read_once(own_nats: RunningNats) -> None:
    bus = await logs_bus(own_nats.url)
    event = LogEvent(id="same", at=1.0, name="run.ended", run="c.1")
    await store(bus, event, event)
    for wanted in (LogFilter(), LogFilter(run="c.1")):
        assert len((await LogReader(bus).page(wanted)).events) == 1
    await bus.close()


async def _follow(reader: LogReader, wanted: LogFilter, found: list[StoredEvent], after: int) -> None:
    async for stored in reader.follow(wanted, after=after):
        found.append(stored)  # noqa: PERF401 - it never ends


async def test_following_over_cuts_has_no_gap_and_no_doubled_event(own_nats: RunningNats) -> None:
    writer = await logs_bus(own_nats.url)
    found: list[StoredEvent] = []
    async with proxy_to(own_nats.port) as proxy, asyncio.TaskGroup() as tasks:
        bus = await Bus.connect(BusSettings(url=proxy.url), name="follower")
        following = tasks.create_task(_follow(LogReader(bus), LogFilter(kinds=(LogKind.RUN,)), found, 0))
        for number in range(400):
            name = "run.ended" if number % 2 else "step.ended"
            await store(writer, LogEvent(id=f"e{number}", at=float(number), name=name))
            if number % 100 == 50:
                proxy.cut()
        await eventually(lambda: len(found) >= 200)
        following.cancel()
        await bus.close()
    assert [stored.event.id for stored in found] == [f"e{number}" for number in range(1, 400, 2)]
    await writer.close()


async def test_a_follower_tells_what_was_discarded_before_it_came(own_nats: RunningNats) -> None:
    bus = await logs_bus(own_nats.url)
    await store(bus, *(LogEvent(id=f"e{number}", at=1.0, name="run.ended") for number in range(10)))
    await call_api(bus, "STREAM.PURGE.LOGS", {"seq": 8})
    found: list[StoredEvent] = []
    following = asyncio.get_running_loop().create_task(_follow(LogReader(bus), LogFilter(), found, 2))
    await eventually(lambda: len(found) == 4)
    following.cancel()
    assert found[0].event.name == "log.gap"
    assert found[0].event.data["count"] == 5
    assert [stored.event.id for stored in found[1:]] == ["e7", "e8", "e9"]
    await bus.close()
