"""A data folder that is full."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.bus.bus import Bus
from actors.bus.declarations import shipped_declaration
from actors.bus.jetstream import enqueue
from actors.bus.provision import apply
from actors.nats_server import EmbeddedNats, NatsServerSettings
from orchestration.errors import DeadlineExceeded, QueueFull, Unavailable
from tests.fixtures.eventually import eventually
from tests.fixtures.small_disk import small_disk
from tests.scenarios.cluster.asking import UNSERVED, connect

SMALL_MB = 24


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of `SMALL_MB` MB in all."""
    with small_disk(tmp_path / "disk", SMALL_MB) as disk:
        yield disk


async def put(bus: Bus, stored: dict[int, int], number: int) -> bool:
    """Put 64 KB of work on a queue; whether it was acknowledged."""
    try:
        sequence = await enqueue(bus, UNSERVED, b"%d" % number + b" " * 65_536, {}, timeout=1)
    except (DeadlineExceeded, Unavailable, QueueFull):
        return False
    stored[sequence] = number
    return True


async def lost(bus: Bus, stored: dict[int, int]) -> list[int]:
    gone = []
    for sequence, number in stored.items():
        reply = await bus.request("$JS.API.DIRECT.GET.GENERATIONS", b'{"seq":%d}' % sequence)
        if reply.status or reply.data.split()[0] != b"%d" % number:
            gone.append(number)
    return gone


async def test_a_full_disk_is_named_loses_nothing_accepted_and_recovers_with_space(
    disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ballast = disk / "ballast"
    ballast.write_bytes(b" " * 10 * 2**20)
    async with EmbeddedNats(NatsServerSettings(data=disk)) as server:
        bus = await connect(server.url)
        try:
            await apply(bus, shipped_declaration())
            stored: dict[int, int] = {}
            while await put(bus, stored, len(stored)):
                assert len(stored) < 1000
            await eventually(lambda: f"disk of the data folder {disk}/nats is full" in caplog.text)
            assert not await put(bus, stored, len(stored))
            assert await lost(bus, stored) == []
            ballast.unlink()
            await eventually(lambda: server.restarts == 1)
            async with asyncio.timeout(30):
                while not await put(bus, stored, len(stored)):  # noqa: ASYNC110 - polls the server
                    await asyncio.sleep(0.1)
            assert len(stored) > 50
            assert await lost(bus, stored) == []
        finally:
            await bus.close()
