"""A folder of a bucket: its keys are read and removed together, and nobody else's are."""

from __future__ import annotations

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest

from actors.bus.bus import Bus
from actors.bus.key_value import Conflict
from actors.bus.key_value_folder import Folder
from orchestration.errors import BusUnavailable
from tests.fixtures.jetstream import api, declare_bucket, stored_in


@pytest.fixture
async def folder(bus: Bus) -> AsyncIterator[Folder]:
    folder = Folder(bus, f"b-{uuid4().hex[:8]}", folder="a.1/of anything")
    await declare_bucket(bus, folder.name)
    yield folder
    await api(bus, f"STREAM.DELETE.KV_{folder.name}")


async def test_all_keys_are_read_in_one_request_and_removed_without_a_trace(bus: Bus, folder: Folder) -> None:
    assert await folder.all() == {}
    for number in range(300):
        await folder.put(f"round {number} / debater.1", b"%d" % number, last=0)
    await folder.put("late", b"1")
    await folder.put("late", b"2")
    await folder.delete("round 7 / debater.1")
    other = Folder(bus, folder.name, folder="a.1")
    await other.put("plan", b"theirs")
    found = await folder.all()
    assert len(found) == 300
    assert found["late"] == b"2"
    assert found["round 299 / debater.1"] == b"299"
    entry = await folder.get("round 299 / debater.1")
    assert entry is not None
    assert entry.value == b"299"
    await folder.remove()
    assert await folder.all() == {}
    assert await other.all() == {"plan": b"theirs"}
    assert await stored_in(bus, f"KV_{folder.name}") == 1
    await folder.put("late", b"3", last=0)  # as if it had never been there


async def test_the_first_of_two_who_create_a_key_wins(folder: Folder) -> None:
    await folder.put("plan", b"first", last=0)
    with pytest.raises(Conflict):
        await folder.put("plan", b"second", last=0)
    assert await folder.all() == {"plan": b"first"}


async def test_a_bucket_that_is_not_there_says_so(bus: Bus) -> None:
    folder = Folder(bus, "nowhere", folder="a")
    for call in (folder.all, folder.remove):
        with pytest.raises(BusUnavailable, match="nowhere"):
            await call()
