"""Runs the parts of the central log in a process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from actors.bus.bus import Bus
from actors.logs.publisher import LogPublisher
from actors.logs.settings import LogsSettings
from actors.telemetry.event_log import event_log


@asynccontextmanager
async def run_log_publisher(bus: Bus, settings: LogsSettings) -> AsyncIterator[None]:
    """Publish the events of this process until the block ends."""
    event_log.content = settings.content
    if not settings.publish:
        yield
        return
    publisher = LogPublisher(bus, settings, event_log)
    await publisher.start()
    try:
        yield
    finally:
        await publisher.stop()
