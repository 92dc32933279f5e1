"""Settings of a machine that becomes a cluster of three, and changes while one of the three is dead."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from actors.bus.bus import Bus
from actors.config.hot_settings import HotSettings
from actors.config.settings_writer import ChangeNote, SettingsWriter
from actors.settings import Settings
from tests.fixtures.eventually import eventually
from tests.fixtures.machines import Machines, machines
from tests.scenarios.cluster.asking import connect
from tests.scenarios.cluster.test_forming import until_kept_three_times

NOTE = ChangeNote(by="alice")


@pytest.fixture
def three(tmp_path: Path) -> Iterator[Machines]:
    with machines(tmp_path, 3) as made:
        yield made


async def until_followed(bus: Bus, revision: int, count: int) -> None:
    """Wait until so many processes use the revision."""

    async def followed() -> bool:
        states = await SettingsWriter(bus, HotSettings(Settings())).followers(revision)
        return [state.revision for state in states] == [revision] * count

    await eventually(followed)


async def test_settings_stay_when_a_machine_becomes_a_cluster_and_change_when_one_of_three_is_dead(
    three: Machines,
) -> None:
    first, second, third = three.all
    first.start()
    await asyncio.to_thread(first.ready)
    alone = await connect(first.url)
    for depth in (5, 6):
        await SettingsWriter(alone, HotSettings(Settings())).set({"gateway.limits.queue_depth": depth}, NOTE)
    await until_followed(alone, 2, 1)
    await alone.close()
    await asyncio.to_thread(first.stop)

    first.start(second, third)
    second.start(first)
    third.start(first)
    for each in three.all:
        await asyncio.to_thread(each.ready)
    bus = await connect(third.url)
    await until_kept_three_times(bus)
    await until_followed(bus, 2, 3)
    writer = SettingsWriter(bus, HotSettings(Settings()))
    assert [change.id for change in await writer.history()] == [2, 1]

    await asyncio.to_thread(first.kill)
    change = await writer.undo(2, NOTE)
    assert change is not None
    await until_followed(bus, 3, 2)
    first.stop()  # closes what it had said
    first.start(second, third)
    await asyncio.to_thread(first.ready)
    await until_followed(bus, 3, 3)
    await bus.close()
