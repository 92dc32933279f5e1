"""The store by motor and by pymongo, with the same tests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

import pytest

from actors.logs.mongo_schema import EVENT_INDEXES, document_of
from actors.logs.mongo_store import DocumentRefused, MongoStore, StoreUnavailable, Written
from actors.logs.settings import MongoSettings
from orchestration.errors import InvalidRequest
from orchestration.log_events import LogEvent
from tests.fixtures.eventually import eventually
from tests.fixtures.mongo import RunningMongo, mongo, mongo_proxy, new_database

__all__ = ["mongo"]

NOON = (datetime.now(UTC) - timedelta(days=1)).replace(hour=12, minute=0, second=0, microsecond=0)
LATER = NOON + timedelta(days=1)


@pytest.fixture(params=["motor", "pymongo"])
def settings(mongo: RunningMongo, request: pytest.FixtureRequest) -> MongoSettings:
    driver: Literal["motor", "pymongo"] = request.param
    return MongoSettings(url=mongo.url, database=new_database(), driver=driver, timeout_s=5)


@pytest.fixture
async def store(settings: MongoSettings) -> AsyncIterator[MongoStore]:
    store = MongoStore(settings)
    await store.prepare()
    yield store
    await store._client.drop_database(settings.database)
    await store.close()


def event(number: int, **fields: Any) -> dict[str, Any]:
    about = {"id": f"e{number}", "at": NOON.timestamp() + number, "name": "run.ended", "run": f"c.{number}"}
    return document_of(LogEvent(**(about | fields)))


async def test_a_document_that_is_there_counts_as_written(store: MongoStore) -> None:
    first = await store.insert([event(1), event(2)])
    again = await store.insert([event(2), event(3)])
    assert (first.new, first.known, first.refused) == (2, 0, {})
    assert (again.new, again.known, again.refused) == (1, 1, {})
    assert await store._events.count_documents({}) == 3


async def test_a_document_that_cannot_be_encoded_is_refused(store: MongoStore) -> None:
    with pytest.raises(DocumentRefused, match="8-byte ints"):
        await store.insert([event(1), event(2, data={"n": 2**70})])


async def test_a_document_that_mongodb_refuses_is_named_with_its_reason(store: MongoStore) -> None:
    await store._database.command("collMod", "events", validator={"run": {"$ne": "c.2"}})
    written = await store.insert([event(1), event(2), event(3)])
    assert (written.new, written.known) == (2, 0)
    assert list(written.refused) == [1]
    assert "121" in written.refused[1]


async def test_a_unique_index_of_others_refuses_nothing_for_good_and_is_named(store: MongoStore) -> None:
    await store._events.create_index([("caller", 1)], unique=True, name="mine")
    await store.insert([event(1)])
    with pytest.raises(StoreUnavailable, match="unique index that is not of Orchestra"):
        await store.insert([event(2)])
    await store.prepare()
    assert store.drifts == [
        "index 'mine' of events is unique and not of Orchestra: it refuses events; drop it"
    ]


async def test_indexes_are_made_once_and_a_changed_lifetime_is_applied(
    store: MongoStore, settings: MongoSettings
) -> None:
    before = await store._events.index_information()
    assert before.keys() == {"_id_", *(index.name for index in EVENT_INDEXES)}
    assert before["expiry"]["expireAfterSeconds"] == 30 * 86_400
    changed = MongoStore(settings.model_copy(update={"events_days": 7}))
    await changed.prepare()
    after = await store._events.index_information()
    assert after["expiry"]["expireAfterSeconds"] == 7 * 86_400
    assert changed.drifts == []
    await changed.close()


async def test_an_index_with_other_keys_is_reported_and_left(store: MongoStore) -> None:
    await store._events.drop_index("level")
    await store._events.create_index([("name", 1)], name="level")
    await store._events.drop_index("run")
    await store._events.create_index([("run", 1), ("time", 1)], name="other")
    await store.prepare()
    assert any("index 'level' of events has the keys" in drift for drift in store.drifts)
    info = await store._events.index_information()
    assert [tuple(key) for key in info["level"]["key"]] == [("name", 1)]


async def test_roll_ups_are_absolute_and_repeating_them_changes_nothing(store: MongoStore) -> None:
    common = {"name": "generation.ended", "node": "n1", "model": "m"}
    data = {"outcome": "ok", "input_tokens": 10, "output_tokens": 5, "duration_s": 0.5}
    await store.insert([event(number, **common, data=data) for number in range(3)])
    failed = data | {"outcome": "node_lost", "output_tokens": 1}
    await store.insert([event(3, **common, data=failed), event(70, **common, data=data)])
    request = {"status": 200, "duration_s": 1.0, "time_to_first_token_s": 0.25}
    await store.insert([event(4, name="request.ended", node="n1", model="m", data=request)])
    for _ in range(2):
        await store.mark([NOON], "a")
        assert await store.marked("a", LATER) == [NOON]
        assert await store.roll_up(NOON, "a", LATER) == 1
    (found,) = await store._rollups.find({}).to_list(None)
    assert found["_id"] == f"{NOON:%Y-%m-%dT%H:%M}/n1/m"
    assert (found["generations"], found["generation_errors"]) == (4, 1)
    assert (found["input_tokens"], found["output_tokens"], found["duration_s"]) == (40, 16, 2.0)
    assert (found["requests"], found["first_tokens"], found["time_to_first_token_s"]) == (1, 1, 0.25)
    assert await store.marked("a", LATER) == []


async def test_a_mark_that_is_set_while_a_minute_is_computed_stays(store: MongoStore) -> None:
    await store.mark([NOON], "a")
    marks = await store._marks("a", NOON, NOON)
    await store.mark([NOON], "a")
    await store._pending.delete_one({"_id": marks[0]["_id"], "stamp": marks[0]["stamp"]})
    assert await store.marked("a", NOON) == [NOON]


async def test_minutes_of_a_shipper_that_died_are_computed_by_another_later(store: MongoStore) -> None:
    """However old the minute is: a shipper that lives may have old events to write."""
    now = datetime.now(UTC)
    await store.mark([NOON], "dead")
    assert await store.marked("b", now - timedelta(minutes=1)) == []
    assert await store.marked("b", now + timedelta(minutes=1)) == [NOON]


@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_a_server_that_is_not_there_is_unavailable(driver: Literal["motor", "pymongo"]) -> None:
    store = MongoStore(MongoSettings(url="mongodb://127.0.0.1:1/", driver=driver, timeout_s=0.2))
    with pytest.raises(StoreUnavailable, match="MongoDB"):
        await store.insert([event(1)])
    await store.close()


@pytest.mark.parametrize("url", ["http://x/", "mongodb://a:b:c@d/", "mongodb://h:notaport/"])
@pytest.mark.parametrize("driver", ["motor", "pymongo"])
async def test_an_address_that_is_none_is_refused_at_the_start(
    driver: Literal["motor", "pymongo"], url: str
) -> None:
    with pytest.raises(InvalidRequest, match=r"logs.mongodb.url is no address"):
        MongoStore(MongoSettings(url=url, driver=driver))


ANSWERS = {
    "read only": {"ok": 0.0, "errmsg": "not primary", "code": 10107, "codeName": "NotWritablePrimary"},
    "full": {"ok": 0.0, "errmsg": "available disk space is less than required", "code": 14031},
    "not permitted": {"ok": 0.0, "errmsg": "not authorized on logs", "code": 13, "codeName": "Unauthorized"},
    "no majority": {
        "ok": 1.0,
        "n": 1,
        "writeConcernError": {"code": 64, "errmsg": "waiting for replication timed out"},
    },
}


@pytest.mark.parametrize("answer", ANSWERS)
async def test_a_server_that_takes_no_writes_is_unavailable_and_nothing_is_lost(
    settings: MongoSettings, mongo: RunningMongo, answer: str
) -> None:
    if not mongo.port:
        pytest.skip("the proxy needs a server on loopback without TLS")
    async with mongo_proxy(mongo.port) as proxy:
        store = MongoStore(settings.model_copy(update={"url": proxy.url}))
        proxy.refuse = ANSWERS[answer]
        with pytest.raises(StoreUnavailable):
            await store.insert([event(1)])
        proxy.refuse = None
        written = await eventually(lambda: inserted(store, event(1)))
        assert written.new == 1
        await store.close()


async def inserted(store: MongoStore, document: dict[str, Any]) -> Written | None:
    """None while the client still believes that the server takes no writes."""
    try:
        return await store.insert([document])
    except StoreUnavailable:
        return None


@pytest.mark.parametrize("turns", range(4))
async def test_a_cancellation_that_comes_together_with_the_answer_is_not_lost(
    store: MongoStore, turns: int
) -> None:
    answer: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def call_again_and_again() -> None:
        await store._call(answer)
        await asyncio.Event().wait()

    calling = asyncio.create_task(call_again_and_again())
    await asyncio.sleep(0)
    answer.set_result(None)
    for _ in range(turns):
        await asyncio.sleep(0)
    calling.cancel()
    done, _ = await asyncio.wait({calling}, timeout=30)
    assert done
