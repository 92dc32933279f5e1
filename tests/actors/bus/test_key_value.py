from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from actors.bus.bus import Bus
from actors.bus.key_value import Bucket, Conflict, Entry, Lease
from orchestration.errors import BusUnavailable
from tests.fixtures.eventually import eventually
from tests.fixtures.jetstream import api, declare_bucket


@pytest.fixture
async def bucket(bus: Bus) -> AsyncIterator[Bucket]:
    bucket = Bucket(bus, f"b-{uuid4().hex[:8]}")
    await declare_bucket(bus, bucket.name, ttl_s=1)
    yield bucket
    await api(bus, f"STREAM.DELETE.KV_{bucket.name}")


async def expired(bucket: Bucket, key: str) -> None:
    """Return once there is no such key; fail after 10 s."""

    async def gone() -> bool:
        return await bucket.get(key) is None

    await eventually(gone)


async def test_a_value_is_read_back_with_its_revision(bucket: Bucket) -> None:
    revision = await bucket.put("a key/with anything.in it", b"value")
    entry = await bucket.get("a key/with anything.in it")
    assert entry is not None
    assert (entry.value, entry.revision) == (b"value", revision)
    assert await bucket.get("other") is None


async def test_the_leading_server_says_the_same_as_any_where_there_is_one(bucket: Bucket) -> None:
    await bucket.put("written", "välue".encode(), holder="me")
    await bucket.put("gone", b"1")
    await bucket.delete("gone")
    await expired(bucket, "gone")
    for key in ("written", "gone", "never"):
        assert await bucket.latest(key, sure=True) == await bucket.latest(key)


async def test_a_sure_read_of_a_bucket_that_is_not_there_says_so(bus: Bus) -> None:
    with pytest.raises(BusUnavailable, match="nowhere"):
        await Bucket(bus, "nowhere").latest("k", sure=True)


async def test_only_one_of_two_creates_wins(bucket: Bucket) -> None:
    results = await asyncio.gather(
        *(bucket.put("k", str(n).encode(), last=0) for n in range(10)), return_exceptions=True
    )
    assert sum(isinstance(result, int) for result in results) == 1
    assert sum(isinstance(result, Conflict) for result in results) == 9


async def test_a_deleted_key_is_not_there_and_can_be_created_over_its_marker(bucket: Bucket) -> None:
    await bucket.put("k", b"1")
    await bucket.delete("k")
    await expired(bucket, "k")
    marker = await bucket.latest("k")
    assert (marker.value, marker.revision) == (None, 2)
    assert await bucket.put("k", b"2", last=marker.revision) > marker.revision


async def test_an_entry_expires_with_the_buckets_ttl(bucket: Bucket) -> None:
    await bucket.put("k", b"1")
    await expired(bucket, "k")
    assert (await bucket.latest("k")).revision == 0


async def test_a_missing_bucket_is_reported(bus: Bus) -> None:
    missing = Bucket(bus, "never-declared")
    for attempt in (missing.put("k", b""), missing.get("k"), missing.watch(lambda *_: None)):
        with pytest.raises(BusUnavailable, match="never-declared"):
            await attempt


async def test_a_watcher_sees_what_is_there_then_writes_then_deletes(bucket: Bucket) -> None:
    seen: list[tuple[bytes | None, str]] = []
    await bucket.put("a", b"1")
    await bucket.put("b", b"2")
    subscription = await bucket.watch(lambda value, subject: seen.append((value, subject)))
    assert sorted(seen) == [(b"1", bucket.subject("a")), (b"2", bucket.subject("b"))]
    seen.clear()
    await bucket.put("a", b"3")
    await bucket.delete("a")
    await eventually(lambda: len(seen) == 2)
    assert seen == [(b"3", bucket.subject("a")), (None, bucket.subject("a"))]
    await subscription.unsubscribe()


async def test_a_watcher_never_sees_a_write_that_was_refused(bucket: Bucket) -> None:
    seen: list[bytes | None] = []
    await bucket.watch(lambda value, _: seen.append(value))
    await bucket.put("k", b"first", last=0)
    with pytest.raises(Conflict):
        await bucket.put("k", b"intruder", last=0)
    await bucket.put("k", b"second")
    await eventually(lambda: len(seen) == 2)
    assert seen == [b"first", b"second"]


async def test_an_update_writes_what_is_made_of_the_present_value(bucket: Bucket) -> None:
    def count(entry: Entry) -> bytes:
        return b"%d" % (int(entry.value or 0) + 1)

    assert (await bucket.update("k", count)).value == b"1"
    await bucket.delete("k")
    assert (await bucket.update("k", count)).value == b"1", "a deleted key has no value"
    second = await bucket.update("k", count, holder="me")
    assert await bucket.get("k") == second == Entry("k", b"2", second.revision, "me")


async def test_no_update_is_lost_while_many_write_the_same_key(bucket: Bucket) -> None:
    async def count(entry: Entry) -> bytes:
        await asyncio.sleep(0)
        return b"%d" % (int(entry.value or 0) + 1)

    await asyncio.gather(*(bucket.update("k", count) for _ in range(8)))
    entry = await bucket.get("k")
    assert entry is not None
    assert entry.value == b"8"


async def test_an_update_that_returns_none_or_raises_writes_nothing(bucket: Bucket) -> None:
    revision = await bucket.put("k", b"1")
    assert await bucket.update("k", lambda _: None) == Entry("k", b"1", revision)

    def refuse(entry: Entry) -> bytes:
        raise ValueError(entry.key)

    with pytest.raises(ValueError, match="k"):
        await bucket.update("k", refuse)
    assert (await bucket.latest("k")).revision == revision


async def test_an_update_that_expects_an_entry_reads_it_only_after_a_conflict(bucket: Bucket) -> None:
    seen: list[bytes | None] = []

    def edit(entry: Entry) -> bytes:
        seen.append(entry.value)
        return b"new"

    await bucket.update("k", edit, expected=Entry("k", None))
    await bucket.update("k", edit, expected=Entry("k", None))
    assert seen == [None, None, b"new"]


async def test_an_update_ends_with_an_error_when_others_always_write_first(bucket: Bucket) -> None:
    async def edit(entry: Entry) -> bytes:
        await bucket.put("k", b"another's")
        return b"mine"

    with pytest.raises(BusUnavailable, match=r"k: others wrote it before each of 20 tries"):
        await bucket.update("k", edit)


async def test_a_lease_is_renewed_past_the_ttl_and_keeps_others_out(bucket: Bucket) -> None:
    mine, theirs = Lease(bucket, "k"), Lease(bucket, "k")
    loop = asyncio.get_running_loop()
    until = loop.time() + 1.5
    while loop.time() < until:
        await mine.hold(b"mine")
        with pytest.raises(Conflict):
            await theirs.hold(b"theirs")
        await asyncio.sleep(0.2)
    entry = await bucket.get("k")
    assert entry is not None
    assert entry.value == b"mine"


async def test_a_lease_that_expired_can_be_taken_and_its_old_holder_learns_it(bucket: Bucket) -> None:
    old, new = Lease(bucket, "k"), Lease(bucket, "k")
    await old.hold(b"old")

    async def take() -> None:
        while True:
            try:
                return await new.hold(b"new")
            except Conflict:
                await asyncio.sleep(0.05)

    await asyncio.wait_for(take(), 30)
    with pytest.raises(Conflict):
        await old.hold(b"old")
    await old.release()
    entry = await bucket.get("k")
    assert entry is not None
    assert entry.value == b"new"


async def test_an_expired_lease_is_created_again_by_its_holder(bucket: Bucket) -> None:
    lease = Lease(bucket, "k")
    await lease.hold(b"1")

    await expired(bucket, "k")
    await lease.hold(b"2")
    assert await bucket.get("k") is not None


async def test_a_renewal_whose_acknowledgement_was_lost_is_no_conflict(bucket: Bucket) -> None:
    lease = Lease(bucket, "k")
    await lease.hold(b"1")
    known = lease.revision
    await lease.hold(b"2")
    lease.revision = known  # as if the second acknowledgement had not come
    await lease.hold(b"3")
    entry = await bucket.get("k")
    assert entry is not None
    assert entry.value == b"3"
    lease.revision = known
    await lease.release()
    assert await bucket.get("k") is None


async def test_a_released_lease_is_free_at_once(bucket: Bucket) -> None:
    first, second = Lease(bucket, "k"), Lease(bucket, "k")
    await first.hold(b"1")
    await first.release()
    await second.hold(b"2")
    entry = await bucket.get("k")
    assert entry is not None
    assert entry.value == b"2"
