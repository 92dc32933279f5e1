"""Shipping events to MongoDB: none lost, none doubled, whatever fails."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest

from actors.bus.bus import Bus
from actors.bus.declarations import shipped_declaration
from actors.bus.jetstream import Delivery, Puller
from actors.bus.provision import apply_when_ready, call_api
from actors.jobs.dead_letters import DeadLetterStore
from actors.logs.gap_detector import GapDetector, LogGap
from actors.logs.mongo_store import MongoStore, Written
from actors.logs.settings import MongoSettings
from actors.logs.shipper import Shipper
from actors.telemetry.event_log import EventLog
from orchestration.log_events import LogEvent
from tests.fixtures.eventually import eventually
from tests.fixtures.log_stream import logs_bus, store
from tests.fixtures.mongo import RunningMongo, mongo, mongo_proxy, new_database, own_mongo
from tests.fixtures.nats import RunningNats

__all__ = ["mongo", "own_mongo"]

EVENTS = 300
NOW = float(int(time.time()))
SMALL = {"batch": 40, "linger_s": 0.01, "timeout_s": 3, "max_backoff_s": 0.3, "rollup_s": 0.2, "attempts": 2}


def events(first: int = 0, count: int = EVENTS, **fields: Any) -> list[LogEvent]:
    return [
        LogEvent(id=f"e{number}", at=NOW + number / 100, name="run.ended", run=f"c.{number}", **fields)
        for number in range(first, first + count)
    ]


@pytest.fixture
async def bus(own_nats: RunningNats) -> AsyncIterator[Bus]:
    bus = await logs_bus(own_nats.url)
    yield bus
    await bus.close()


def settings_of(url: str, driver: Literal["motor", "pymongo"] = "motor", **more: Any) -> MongoSettings:
    return MongoSettings.model_validate(
        SMALL | {"url": url, "database": new_database(), "driver": driver} | more
    )


@asynccontextmanager
async def shipping(bus: Bus, settings: MongoSettings, name: str = "s1") -> AsyncIterator[Shipper]:
    source = EventLog()
    shipper = Shipper(bus, settings, name, source)
    await shipper.start()
    try:
        yield shipper
    finally:
        await shipper.stop()


async def ids(settings: MongoSettings, url: str = "") -> list[str]:
    """The ids of the events in MongoDB."""
    reader = MongoStore(settings.model_copy(update={"url": url or settings.url}))
    found = [each["_id"] for each in await reader._events.find({}, {"_id": 1}).to_list(None)]
    await reader.close()
    return sorted(found, key=lambda each: int(each[1:]))


async def unsettled(bus: Bus) -> int:
    """Events that are not acknowledged."""
    info = await call_api(bus, "CONSUMER.INFO.LOGS.log-shipper")
    return int(info["num_pending"] + info["num_ack_pending"])


async def all_settled(bus: Bus, within_s: float = 60) -> None:
    async def settled() -> bool:
        return await unsettled(bus) == 0

    await eventually(settled, within_s=within_s)


def expected(count: int = EVENTS) -> list[str]:
    return [f"e{number}" for number in range(count)]


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_every_event_is_written_once_and_acknowledged(
    bus: Bus, mongo: RunningMongo, driver: Literal["motor", "pymongo"]
) -> None:
    settings = settings_of(mongo.url, driver)
    await store(bus, *events())
    async with shipping(bus, settings):
        await store(bus, *events(0, 20))  # facts that are told again
        await all_settled(bus)
    assert await ids(settings) == expected()


async def test_several_shippers_share_the_work(bus: Bus, mongo: RunningMongo) -> None:
    settings = settings_of(mongo.url)
    async with shipping(bus, settings, "a") as a, shipping(bus, settings, "b") as b:
        await store(bus, *events())
        await all_settled(bus)
        assert a.writer.problem == b.writer.problem == ""
    assert await ids(settings) == expected()


async def test_events_wait_while_mongodb_is_dead_and_are_written_when_it_is_back(
    bus: Bus, own_mongo: RunningMongo
) -> None:
    settings = settings_of(own_mongo.url)
    async with shipping(bus, settings) as shipper:
        await store(bus, *events(0, 50))
        await all_settled(bus)
        own_mongo.kill()
        await store(bus, *events(50, 250))
        await eventually(lambda: shipper.writer.problem)
        own_mongo.restart()
        await all_settled(bus)
        assert shipper.writer.problem == ""
    assert await ids(settings) == expected()


@pytest.mark.parametrize("point", ["before the write", "after the write"])
async def test_mongodb_killed_at_a_write_loses_and_doubles_nothing(
    bus: Bus, own_mongo: RunningMongo, point: str
) -> None:
    async with mongo_proxy(own_mongo.port) as proxy:
        settings = settings_of(proxy.url)

        async def kill() -> None:
            proxy.at_insert = proxy.at_inserted = None
            own_mongo.kill()
            own_mongo.restart()
            proxy.cut()
            raise ConnectionError("killed")

        async with shipping(bus, settings):
            await store(bus, *events(0, 100))
            await all_settled(bus)
            setattr(proxy, "at_insert" if point == "before the write" else "at_inserted", kill)
            await store(bus, *events(100, 200))
            await all_settled(bus)
    assert await ids(settings, own_mongo.url) == expected()


@pytest.mark.parametrize("state", ["dead", "frozen"])
async def test_a_shipper_ends_without_waiting_for_a_mongodb_that_does_not_answer(
    bus: Bus, own_mongo: RunningMongo, state: str
) -> None:
    async with mongo_proxy(own_mongo.port) as proxy:
        settings = settings_of(proxy.url, timeout_s=3_600)
        shipper = Shipper(bus, settings, "s1", EventLog())
        await shipper.start()
        await store(bus, *events(0, 20))
        await all_settled(bus)
        reached = asyncio.Event()

        async def freeze() -> None:
            reached.set()
            if state == "dead":
                own_mongo.kill()
                raise ConnectionError("killed")
            await asyncio.Event().wait()

        proxy.at_insert = freeze
        await store(bus, *events(20, 20))
        await reached.wait()
        async with asyncio.timeout(60):  # far below the hour that a write may take
            await shipper.stop()
        assert await unsettled(bus) == 20
        if state == "dead":
            own_mongo.restart()
    async with shipping(bus, settings.model_copy(update={"url": own_mongo.url})):
        await all_settled(bus)
    assert await ids(settings, own_mongo.url) == expected(40)


async def test_an_event_that_cannot_become_a_dead_letter_comes_again(bus: Bus, mongo: RunningMongo) -> None:
    settings = settings_of(mongo.url)
    dead = (await call_api(bus, "STREAM.INFO.DEAD"))["config"]
    await call_api(bus, "STREAM.DELETE.DEAD")
    async with shipping(bus, settings) as shipper:
        await store(bus, LogEvent(id="big", at=NOW, name="run.ended", data={"n": 2**70}))
        await eventually(lambda: bool(shipper.gaps._delivery), within_s=20)
        await store(bus, *events(0, 5))
        await eventually(lambda: _unsettled_is(bus, 1), within_s=20)
        await call_api(bus, "STREAM.CREATE.DEAD", dead)
        await all_settled(bus)
    assert [letter.id for letter in (await DeadLetterStore(bus).list(limit=10))[0]] == ["big"]


async def _unsettled_is(bus: Bus, count: int) -> bool:
    return await unsettled(bus) == count


async def test_a_shipper_goes_on_after_a_defect(
    bus: Bus, mongo: RunningMongo, caplog: pytest.LogCaptureFixture
) -> None:
    settings = settings_of(mongo.url)
    async with shipping(bus, settings) as shipper:
        insert, failures = shipper.store.insert, 1

        async def fails_once(documents: Sequence[dict[str, Any]]) -> Written:
            nonlocal failures
            if failures:
                failures -= 1
                raise KeyError("a defect")
            return await insert(documents)

        shipper.store.insert = fails_once  # type: ignore[method-assign]
        await store(bus, *events(0, 20))
        await all_settled(bus)
    assert await ids(settings) == expected(20)
    assert "shipping failed" in caplog.text


REFUSALS = {
    "refusing writes": {"ok": 0.0, "errmsg": "not primary", "code": 10107, "codeName": "NotWritablePrimary"},
    "full": {
        "ok": 1.0,
        "n": 0,
        "writeErrors": [{"index": 0, "code": 14031, "errmsg": "out of disk space"}],
    },
}


@pytest.mark.parametrize("refusal", REFUSALS)
async def test_mongodb_that_refuses_writes_or_is_full_is_waited_for_and_nothing_is_a_dead_letter(
    bus: Bus, mongo: RunningMongo, refusal: str, caplog: pytest.LogCaptureFixture
) -> None:
    _need_proxy(mongo)
    async with mongo_proxy(mongo.port) as proxy:
        settings = settings_of(proxy.url)
        async with shipping(bus, settings) as shipper:
            proxy.refuse = REFUSALS[refusal]
            await store(bus, *events(0, 60))
            await eventually(lambda: proxy.inserts > 3)
            assert shipper.writer.problem
            proxy.refuse = None
            await all_settled(bus)
    assert await ids(settings, mongo.url) == expected(60)
    assert (await DeadLetterStore(bus).list(limit=10))[0] == []
    assert "events wait in the stream LOGS" in caplog.text


def _need_proxy(mongo: RunningMongo) -> None:
    if not mongo.port:
        pytest.skip("the proxy needs a server on loopback without TLS")


async def test_a_wrong_password_is_told_and_nothing_is_lost(
    bus: Bus, mongo: RunningMongo, caplog: pytest.LogCaptureFixture
) -> None:
    host = mongo.url.partition("://")[2].rpartition("@")[2]
    wrong = settings_of(f"mongodb://nobody:wrong-secret@{host}", timeout_s=2)
    await store(bus, *events(0, 20))
    async with shipping(bus, wrong) as shipper:
        await eventually(lambda: shipper.writer.problem)
        problem = shipper.writer.problem
    assert "MongoDB" in problem
    assert "full error" not in problem  # it differs each time, so each retry would be told
    assert "wrong-secret" not in problem + caplog.text
    right = wrong.model_copy(update={"url": mongo.url})
    async with shipping(bus, right):
        await all_settled(bus)
    assert await ids(right) == expected(20)


async def test_poison_is_found_among_good_events_and_is_a_dead_letter_with_its_reason(
    bus: Bus, mongo: RunningMongo
) -> None:
    settings = settings_of(mongo.url)
    preparing = MongoStore(settings)
    await preparing.prepare()
    await preparing._database.command("collMod", "events", validator={"caller": {"$ne": "poison"}})
    await store(bus, *events(0, 30))
    await store(bus, LogEvent(id="big", at=NOW, name="run.ended", data={"n": 2**70}))
    await store(bus, LogEvent(id="bad", at=NOW, name="run.ended", caller="poison"))
    await bus.publish("logs.info.run.-.-.-.1", b"no event")
    await store(bus, *events(30, 30))
    async with shipping(bus, settings):
        await all_settled(bus)
    await preparing.close()
    assert await ids(settings) == expected(60)
    letters = {letter.id: letter for letter in (await DeadLetterStore(bus).list(limit=10))[0]}
    assert "8-byte ints" in letters["big"].reason
    assert "121" in letters["bad"].reason
    assert letters["bad"].attempts == 2
    assert json.loads(letters["bad"].message.data)["caller"] == "poison"
    assert any("no event" in letter.reason for letter in letters.values())
    assert len(letters) == 3


async def test_a_unique_index_of_others_stops_shipping_until_it_is_dropped(
    bus: Bus, mongo: RunningMongo
) -> None:
    settings = settings_of(mongo.url)
    other = MongoStore(settings)
    await other._events.create_index([("caller", 1)], unique=True, name="mine")
    async with shipping(bus, settings) as shipper:
        await store(bus, *events(0, 20))
        await eventually(lambda: "unique index" in shipper.writer.problem)
        await other._events.drop_index("mine")
        await all_settled(bus)
    await other.close()
    assert await ids(settings) == expected(20)


async def test_roll_ups_follow_the_events(bus: Bus, mongo: RunningMongo) -> None:
    settings = settings_of(mongo.url)
    data = {"outcome": "ok", "input_tokens": 3, "output_tokens": 2}
    calls = [
        LogEvent(id=f"g{n}", at=NOW + n, name="generation.ended", model="m", node=f"n{n % 2}", data=data)
        for n in range(240)
    ]
    async with shipping(bus, settings) as shipper:
        await store(bus, *calls)
        await all_settled(bus)
        totals = await eventually(lambda: _totals(shipper, 240))
    assert totals == (240, 720, 480)


@pytest.mark.parametrize("computed_by", ["the same shipper", "another"])
async def test_events_that_are_written_while_their_minute_is_computed_are_in_its_roll_up(
    bus: Bus, mongo: RunningMongo, computed_by: str
) -> None:
    _need_proxy(mongo)
    async with mongo_proxy(mongo.port) as proxy:
        settings = settings_of(proxy.url, rollup_s=3_600)
        shipper = Shipper(bus, settings, "s1", EventLog())
        other = Shipper(bus, settings.model_copy(update={"url": mongo.url}), "s2", EventLog())
        await shipper.start()
        marked, computed = asyncio.Event(), asyncio.Event()

        async def wait() -> None:
            proxy.at_insert = None
            marked.set()
            await computed.wait()

        proxy.at_insert = wait
        old = NOW - 600  # so that another shipper might believe that the minute was left behind
        calls = [LogEvent(id=f"g{n}", at=old, name="generation.ended", model="m") for n in range(10)]
        await store(bus, *calls)
        await marked.wait()
        await (shipper if computed_by == "the same shipper" else other)._compute_rollups()
        computed.set()
        await all_settled(bus)
        await shipper.stop()  # it computes what is marked
        await other.store.close()
    reader = MongoStore(settings.model_copy(update={"url": mongo.url}))
    (found,) = await reader._rollups.find({}).to_list(None)
    await reader.close()
    assert found["generations"] == 10


async def _totals(shipper: Shipper, count: int) -> tuple[int, int, int] | None:
    found = await shipper.store._rollups.find({}).to_list(None)
    names = ("generations", "input_tokens", "output_tokens")
    generations, read, written = (sum(each[name] for each in found) for name in names)
    return (generations, read, written) if generations == count else None


async def discard_all_but(bus: Bus, kept: int) -> None:
    """Have the stream discard its oldest events at its limit."""
    config = (await call_api(bus, "STREAM.INFO.LOGS"))["config"]
    await call_api(bus, "STREAM.UPDATE.LOGS", config | {"max_msgs": kept})
    await call_api(bus, "STREAM.UPDATE.LOGS", config)


async def test_events_that_the_stream_discarded_are_told_as_a_gap(bus: Bus, mongo: RunningMongo) -> None:
    _need_proxy(mongo)
    settings = settings_of(mongo.url)
    async with shipping(bus, settings):
        await store(bus, *events(0, 50))
        await all_settled(bus)
    await store(bus, *events(50, 200))
    await discard_all_but(bus, 50)
    told: list[LogEvent] = []
    shipper = Shipper(bus, settings, "s2", EventLog())
    shipper.source.add_sink(told.append)
    await shipper.start()
    await all_settled(bus)
    await eventually(lambda: told)  # by then the lease on telling has expired
    await shipper.stop()
    (gap,) = told
    assert gap.name == "log.gap"
    assert gap.data["count"] == 150
    assert (gap.data["first_sequence"], gap.data["last_sequence"]) == (51, 200)
    assert await ids(settings) == expected()[:50] + expected()[200:250]


async def test_events_of_a_dead_shipper_that_the_stream_discarded_are_told_too(
    bus: Bus, mongo: RunningMongo, own_nats: RunningNats
) -> None:
    settings = settings_of(mongo.url)
    taken: list[Delivery] = []
    async with shipping(bus, settings) as first:
        await store(bus, *events(0, 10))
        await all_settled(bus)
        await eventually(lambda: _noted(first, 10))
    await store(bus, *events(10, 40))
    other = await logs_bus(own_nats.url)
    puller = Puller(other, "LOGS", "log-shipper", taken.append)
    await puller.start()
    puller.request(30)
    await eventually(lambda: len(taken) == 30)
    await other.close()  # it dies with what it has
    await discard_all_but(bus, 5)
    told: list[LogEvent] = []
    shipper = Shipper(bus, settings, "s2", EventLog())
    shipper.source.add_sink(told.append)
    await eventually(lambda: _no_puller(bus))
    await shipper.start()
    await eventually(lambda: sum(event.data["count"] for event in told) == 35)
    await shipper.stop()


async def test_a_purge_of_the_stream_is_told_once_for_what_was_not_shipped(
    bus: Bus, mongo: RunningMongo
) -> None:
    settings = settings_of(mongo.url)
    told: list[LogEvent] = []

    @asynccontextmanager
    async def telling(name: str) -> AsyncIterator[Shipper]:
        shipper = Shipper(bus, settings, name, EventLog())
        shipper.source.add_sink(told.append)
        await shipper.start()
        yield shipper
        await shipper.stop()

    async with telling("a") as first:
        await store(bus, *events(0, 50))
        await all_settled(bus)
        await eventually(lambda: _noted(first, 50))
        await call_api(bus, "STREAM.PURGE.LOGS")  # all of it was shipped
        await store(bus, *events(50, 10))
        await all_settled(bus)
        await eventually(lambda: _noted(first, 60))
    assert told == []
    await store(bus, *events(60, 100))
    await call_api(bus, "STREAM.PURGE.LOGS")
    async with telling("b") as second, telling("c"):
        await store(bus, *events(160, 50))
        await all_settled(bus)
        await eventually(lambda: told)
        await eventually(lambda: _noted(second, 210))
    async with telling("d") as last:
        await store(bus, *events(210, 10))
        await all_settled(bus)
        await eventually(lambda: _noted(last, 220))
    (gap,) = told
    assert (gap.data["first_sequence"], gap.data["count"]) == (61, 100)
    assert await ids(settings) == [*expected()[:60], *expected()[160:220]]


async def test_a_shipper_goes_on_with_a_stream_that_was_made_again(bus: Bus, mongo: RunningMongo) -> None:
    """Its places and the numbers of its deliveries begin at 1 again, and gaps in it are noticed."""
    settings = settings_of(mongo.url)
    async with shipping(bus, settings) as shipper:
        await store(bus, *events(0, 50))
        await all_settled(bus)
        before = shipper._stream
        await call_api(bus, "STREAM.DELETE.LOGS")
        await apply_when_ready(bus, shipped_declaration())
        await eventually(lambda: shipper._stream != before, within_s=20)
        await store(bus, *events(50, 10))
        await all_settled(bus)
        assert await ids(settings) == expected(60)
        await eventually(lambda: _noted(shipper, 10), within_s=20)
        assert shipper.gaps.seen(14, 21) == LogGap(11, 7)


async def _noted(shipper: Shipper, place: int) -> bool:
    return await shipper.store.progress(shipper._stream) == place


async def _no_puller(bus: Bus) -> bool:
    info = await call_api(bus, "CONSUMER.INFO.LOGS.log-shipper")
    return not info.get("num_waiting")


def test_gaps_are_counted_by_the_deliveries_of_all_shippers() -> None:
    gaps = GapDetector()
    gaps.state(10, 100)
    assert gaps.seen(11, 101) is None
    assert gaps.seen(14, 104) is None  # two went to another shipper
    assert gaps.seen(15, 60) is None  # a redelivery
    assert gaps.seen(16, 105) is None
    assert gaps.seen(18, 110) == LogGap(106, 3)
    assert gaps.seen(19, 111) is None
    assert gaps.state(21, 113) is None
    assert gaps.state(21, 120) == LogGap(114, 7)  # a purge moved the consumer on
    assert gaps.seen(22, 121) is None


def test_the_first_delivery_of_all_tells_no_gap() -> None:
    assert GapDetector().seen(1, 5_000) is None
