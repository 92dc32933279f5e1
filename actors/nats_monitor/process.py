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


class MonitorProcess:
    """The NATS monitor of a process, and its listener for advisories."""

    def __init__(self, bus: Bus, settings: NatsMonitorSettings, identity: ProcessIdentity) -> None:
        self.monitor = NatsMonitor(bus, identity.id, settings)
        self.listener = AdvisoryListener(bus, events_per_minute=settings.advisory_events_per_minute)

    def update_settings(self, settings: NatsMonitorSettings) -> None:
        """Follow a change of the settings."""
        self.monitor.settings = settings
        self.listener.events_per_minute = settings.advisory_events_per_minute


@asynccontextmanager
async def run_nats_monitor(
    bus: Bus, settings: NatsMonitorSettings, identity: ProcessIdentity
) -> AsyncIterator[MonitorProcess]:
    """Read and export what the NATS server knows, until the block ends. Other roles do nothing."""
    process = MonitorProcess(bus, settings, identity)
    if not settings.enabled or identity.role not in ROLES:
        yield process
        return
    REGISTRY.register(process.monitor.metrics)
    try:
        await process.listener.start()
        await process.monitor.start()
        yield process
    finally:
        await process.monitor.stop()
        await process.listener.stop()
        REGISTRY.unregister(process.monitor.metrics)


class MessageTracing:
    """Whether NATS servers trace the messages that a process sends, and its listener for what they tell."""

    def __init__(self, bus: Bus, settings: TelemetrySettings) -> None:
        self.bus = bus
        self.listener = MessageTraceListener(bus, export_span, per_second=settings.nats_records_per_second)

    def update_settings(self, settings: TelemetrySettings) -> None:
        """Follow a change of the settings."""
        self.listener.per_second = settings.nats_records_per_second
        wanted = settings.otlp_endpoint and settings.nats_messages
        self.bus.message_traces = (
            MessageTraces(per_second=settings.nats_messages_per_second) if wanted else None
        )


@asynccontextmanager
async def traced_messages(
    bus: Bus, settings: TelemetrySettings, identity: ProcessIdentity
) -> AsyncIterator[MessageTracing]:
    """Have NATS servers trace what this process sends for traced requests, until the block ends. Processes
    of `ROLES` make spans of what servers tell, for all. Enter it after the tracing of the process."""
    tracing = MessageTracing(bus, settings)
    if settings.otlp_endpoint and identity.role in ROLES:
        await tracing.listener.start()
    tracing.update_settings(settings)
    try:
        yield tracing
    finally:
        bus.message_traces = None
        await tracing.listener.stop()
