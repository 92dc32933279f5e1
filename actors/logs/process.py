"""Runs the parts of the central log in a process."""

from __future__ import annotations

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

OWN_LOGGERS = ("actors.logs", "motor", "pymongo")
"""Loggers whose records never become events."""


@asynccontextmanager
async def run_log_publisher(bus: Bus, settings: LogsSettings) -> AsyncIterator[None]:
    """Publish the events of this process until the block ends."""
    event_log.content = settings.content
    if not settings.publish:
        yield
        return
    publisher = LogPublisher(bus, settings, event_log)
    await publisher.start()
    handler = RecordHandler(event_log, settings.record_level, OWN_LOGGERS)
    if settings.record_level != "OFF":
        logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
        await publisher.stop()


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
