"""Runs the NATS monitor in a process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from secrets import token_hex
from typing import TYPE_CHECKING

from prometheus_client import REGISTRY

from actors.bus.bus import Bus
from actors.bus.message_traces import MessageTracer
from actors.bus.subjects import MessageTraceAddress
from actors.nats_monitor.advisories import AdvisoryListener
from actors.nats_monitor.held_spans import HeldSpans
from actors.nats_monitor.message_trace_listener import MessageTraceListener
from actors.nats_monitor.monitor import NatsMonitor
from actors.nats_monitor.settings import NatsMonitorSettings
from actors.telemetry.identity import ProcessIdentity
from actors.telemetry.settings import TelemetrySettings

if TYPE_CHECKING:
    from actors.telemetry.otlp import Telemetry
    from actors.telemetry.span_record import SpanRecord

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
    """Has NATS servers trace the messages that a process sends for traced requests."""

    def __init__(self, bus: Bus, held: HeldSpans, settings: TelemetrySettings) -> None:
        self.bus = bus
        subject = MessageTraceAddress(token_hex(8)).subject
        self._tracer = MessageTracer(subject, held.expect, per_second=settings.nats_messages_per_second)
        self.listener = MessageTraceListener(
            bus, subject, held.add, per_second=settings.nats_records_per_second
        )

    def update_settings(self, settings: TelemetrySettings) -> None:
        """Follow a change of the settings."""
        self.listener.per_second = settings.nats_records_per_second
        self._tracer.per_second = settings.nats_messages_per_second
        self.bus.message_tracer = self._tracer if settings.nats_messages else None


@asynccontextmanager
async def traced_messages(bus: Bus, telemetry: Telemetry) -> AsyncIterator[MessageTracing]:
    """Show which way messages of this process took in the traces that `telemetry` exports, until the block
    ends."""
    held, on_end = HeldSpans(), telemetry.tracer.on_end

    def ended(span: SpanRecord) -> None:
        on_end(span)
        held.on_end(span)

    telemetry.tracer.on_end = ended
    tracing = MessageTracing(bus, held, telemetry.settings)
    await tracing.listener.start()
    tracing.update_settings(telemetry.settings)
    try:
        yield tracing
    finally:
        bus.message_tracer = None
        await tracing.listener.stop()
        telemetry.tracer.on_end = on_end
