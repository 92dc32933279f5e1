"""Settings of the log that are changed while a process runs."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator

import pytest
from prometheus_client import REGISTRY

from actors.bus.bus import Bus
from actors.bus.direct_get import StoredPage, get_batch
from actors.config.cluster_settings import ClusterSettings, Stored, ValueChange
from actors.config.hot_settings import HotSettings
from actors.launch.observability import observed
from actors.settings import Settings
from actors.telemetry.event_log import event_log
from actors.telemetry.identity import ProcessIdentity
from orchestration.log_events import LogEvent
from tests.fixtures.eventually import eventually
from tests.fixtures.log_stream import logs_bus
from tests.fixtures.nats import RunningNats

BASE = Settings.model_validate({"logs": {"flush_s": 0.01}, "telemetry": {"metrics": ""}})
WORKER = logging.getLogger("tests.worker")


@pytest.fixture
async def bus(own_nats: RunningNats) -> AsyncIterator[Bus]:
    bus = await logs_bus(own_nats.url)
    yield bus
    await bus.close()


async def stored(bus: Bus) -> list[LogEvent]:
    """The events that tests recorded, as the stream has them."""
    page: StoredPage = await get_batch(bus, "LOGS", {"seq": 1, "batch": 1_000})
    events = [LogEvent.model_validate_json(message.data) for message in page.messages]
    return [event for event in events if event.run or event.data.get("logger") == WORKER.name]


async def test_every_setting_of_publishing_follows_while_the_process_runs(bus: Bus) -> None:
    hot = HotSettings(BASE)
    document = ClusterSettings()

    def change(**values: object) -> None:
        nonlocal document
        changes = (
            ValueChange(name=f"logs.{name}", after=Stored(value=value)) for name, value in values.items()
        )
        document = document.changed(changes, by="ann", reason="")
        assert hot.take(document)

    async with observed(bus, hot, ProcessIdentity(role="agents", id="a", host="here", pid=1)):
        change(publish=False)
        event_log.record("run.started", run="hidden")
        WORKER.warning("hidden")
        change(publish=True, record_level="ERROR")
        WORKER.warning("below the level")
        WORKER.error("shown")
        change(record_level="WARNING", records_per_minute=1)
        WORKER.warning("first")
        WORKER.warning("second")
        change(max_event_kib=4)
        event_log.record("run.started", run="long", message="x" * 60_000)
        change(max_event_kib=64)
        event_log.record("run.started", run="long", message="x" * 60_000)

        async def published() -> bool:
            waiting = REGISTRY.get_sample_value("orchestra_log_events_waiting")
            return len(await stored(bus)) == 4 and not waiting

        await eventually(published)
        change(flush_s=30, buffer_events=10)
        for number in range(50):
            event_log.record("run.started", run=f"c.{number}")
        change(buffer_events=30, buffer_mib=0.01)
        for number in range(50, 100):
            event_log.record("run.started", run=f"c.{number}")
    events = await stored(bus)
    told = [(event.data.get("logger") and event.message) or event.run for event in events]
    assert told[:4] == ["shown", "first", "long", "long"]
    assert [len(event.message) < 2_000 for event in events[2:4]] == [True, False]
    assert told[4:14] == [f"c.{number}" for number in range(10)]
    waiting = [name for name in told[14:] if name.startswith("c.")]
    assert 0 < len(waiting) < 20  # 10 KiB hold fewer than 30 events
    assert waiting[0] == "c.50"
