"""Runs the parts of the central log in a process."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from actors.bus.bus import Bus
from actors.logs.publisher import LogPublisher
from actors.logs.settings import LogsSettings
from actors.telemetry.event_log import event_log
from actors.telemetry.identity import ProcessIdentity
from actors.telemetry.local_log import RecordHandler
from orchestration.errors import InvalidRequest

LOOK_S = 10.0
"""Time between two looks for minutes that are over, of which records were left out."""
OWN_LOGGERS = ("actors.logs", "motor", "pymongo")
"""Loggers whose records never become events."""


class PublisherProcess:
    """The publisher of a process, and what makes events of its log records."""

    def __init__(self, bus: Bus, settings: LogsSettings) -> None:
        self.publisher = LogPublisher(bus, settings, event_log)
        self.handler = RecordHandler(
            event_log, settings.record_level, OWN_LOGGERS, settings.records_per_minute
        )
        self.update_settings(settings)

    def update_settings(self, settings: LogsSettings) -> None:
        """Follow a change of the settings."""
        event_log.content = settings.content
        self.publisher.use(settings)
        self.handler.limit.per_minute = settings.records_per_minute
        logging.getLogger().removeHandler(self.handler)
        if settings.publish and settings.record_level != "OFF":
            self.handler.setLevel(settings.record_level)
            logging.getLogger().addHandler(self.handler)

    async def look(self) -> None:
        """Tell what was left out of the log once its minute is over."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.handler.tell_left_out()

    async def stop(self) -> None:
        logging.getLogger().removeHandler(self.handler)
        self.handler.tell_left_out(now=True)
        await self.publisher.stop()


@asynccontextmanager
async def run_log_publisher(bus: Bus, settings: LogsSettings) -> AsyncIterator[PublisherProcess]:
    """Publish the events of this process until the block ends."""
    process = PublisherProcess(bus, settings)
    await process.publisher.start()
    looking = asyncio.get_running_loop().create_task(process.look())
    try:
        yield process
    finally:
        looking.cancel()
        await asyncio.wait({looking})
        await process.stop()


@asynccontextmanager
async def run_shipper(bus: Bus, settings: LogsSettings, identity: ProcessIdentity) -> AsyncIterator[None]:
    """Ship events to MongoDB until the block ends. MongoDB need not be there yet. Raises `InvalidRequest` for
    an address that cannot be used, and `ExtraMissing`."""
    from actors.logs.shipper import Shipper

    if not settings.mongodb.url:
        raise InvalidRequest(
            "no MongoDB to ship to: set logs.mongodb.url, such as mongodb://USER:PASSWORD@HOST:27017/",
            param="logs.mongodb.url",
        )
    shipper = Shipper(bus, settings.mongodb, identity.id)
    await shipper.start()
    try:
        yield
    finally:
        await shipper.stop()
