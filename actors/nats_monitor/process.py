"""Runs the NATS monitor in a process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from prometheus_client import REGISTRY

from actors.bus.bus import Bus
from actors.bus.message_traces import MessageTraces
from actors.nats_monitor.advisories import AdvisoryListener
from actors.nats_monitor.message_trace_listener import MessageTraceListener, export_span
from actors.nats_monitor.monitor import NatsMonitor
from actors.nats_monitor.settings import NatsMonitorSettings
from actors.telemetry.identity import ProcessIdentity
from actors.telemetry.settings import TelemetrySettings

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


@asynccontextmanager
async def traced_messages(
    bus: Bus, settings: TelemetrySettings, identity: ProcessIdentity
) -> AsyncIterator[None]:
    """Have NATS servers trace what this process sends for traced requests, until the block ends. Processes
    of `ROLES` make spans of what servers tell, for all. Enter it after the tracing of the process."""
    if not settings.otlp_endpoint or not settings.nats_messages:
        yield
        return
    listener = MessageTraceListener(bus, export_span, per_second=settings.nats_records_per_second)
    if identity.role in ROLES:
        await listener.start()
    bus.message_traces = MessageTraces(per_second=settings.nats_messages_per_second)
    try:
        yield
    finally:
        bus.message_traces = None
        await listener.stop()
