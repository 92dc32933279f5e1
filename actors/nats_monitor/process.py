"""Runs the NATS monitor in a process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import REGISTRY

from actors.bus.bus import Bus
from actors.nats_monitor.advisories import AdvisoryListener
from actors.nats_monitor.monitor import NatsMonitor
from actors.nats_monitor.settings import NatsMonitorSettings
from actors.telemetry.identity import ProcessIdentity

ROLES = ("up", "gateway", "dispatcher")
"""Roles of which every cluster has one."""


@asynccontextmanager
async def run_nats_monitor(
    bus: Bus, settings: NatsMonitorSettings, identity: ProcessIdentity
) -> AsyncIterator[None]:
    """Read and export what the NATS server knows, until the block ends. Other roles do nothing."""
    if not settings.enabled or identity.role not in ROLES:
        yield
        return
    monitor = NatsMonitor(bus, identity.id, settings)
    listener = AdvisoryListener(bus, events_per_minute=settings.advisory_events_per_minute)
    REGISTRY.register(monitor.metrics)
    try:
        await listener.start()
        await monitor.start()
        yield
    finally:
        await monitor.stop()
        await listener.stop()
        REGISTRY.unregister(monitor.metrics)
