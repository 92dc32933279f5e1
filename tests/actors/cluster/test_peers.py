"""Processes of one kind find each other, and notice which of them leave or fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from uuid import uuid4

import pytest

from actors.bus.bus import Bus, BusSettings
from actors.cluster.peers import PeerGroup
from tests.fixtures.eventually import eventually
from tests.fixtures.nats import RunningNats


@pytest.fixture
def kind() -> str:
    return uuid4().hex


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


async def test_a_peer_that_joins_waits_until_another_has_taken_note_of_it(
    bus: Bus, kind: str, stack: AsyncExitStack
) -> None:
    noted = asyncio.Event()
    heard: list[set[str]] = []

    async def change() -> None:
        heard.append(set(first.peers))
        await noted.wait()

    first = PeerGroup(bus, kind, on_change=change)
    second = PeerGroup(bus, kind)
    await first.start()
    stack.push_async_callback(first.stop)
    assert first.peers == {}
    joining = asyncio.ensure_future(second.start())
    stack.push_async_callback(second.stop)
    await eventually(lambda: heard == [{second.name}])
    assert not joining.done()
    noted.set()
    await joining
    await eventually(lambda: set(second.peers) == {first.name})


async def test_the_status_of_a_peer_is_known_and_a_peer_that_leaves_is_gone_at_once(
    bus: Bus, kind: str, stack: AsyncExitStack
) -> None:
    status = ["calm"]
    beats: list[str] = []
    first = PeerGroup(bus, kind, on_heartbeat=lambda: beats.extend(first.peers.values()))
    second = PeerGroup(bus, kind, status=lambda: status[0])
    for each in (first, second):
        await each.start()
        stack.push_async_callback(each.stop)
    await eventually(lambda: first.peers == {second.name: "calm"})
    status[0] = "starving"
    await eventually(lambda: "starving" in beats)
    await second.stop()
    await eventually(lambda: first.peers == {})


async def test_a_peer_without_heartbeats_has_failed_and_one_of_another_kind_is_none(
    bus: Bus, nats_server: RunningNats, kind: str, stack: AsyncExitStack
) -> None:
    quick = partial(PeerGroup, heartbeat_s=0.05, timeout_s=0.5)
    killed = await Bus.connect(BusSettings(url=nats_server.url), name="killed")
    first, other = quick(bus, kind), quick(bus, f"{kind}-other")
    second = quick(killed, kind)
    for each in (first, second, other):
        await each.start()
        stack.push_async_callback(each.stop)
    await eventually(lambda: set(first.peers) == {second.name})
    assert other.peers == {}
    await killed.close()
    await eventually(lambda: first.peers == {})


async def test_an_invalid_heartbeat_is_ignored(bus: Bus, kind: str, stack: AsyncExitStack) -> None:
    first, second = PeerGroup(bus, kind), PeerGroup(bus, kind)
    await first.start()
    stack.push_async_callback(first.stop)
    await bus.publish(first.subject, b"not JSON")
    await second.start()
    stack.push_async_callback(second.stop)
    await eventually(lambda: set(first.peers) == {second.name})
