"""What every process runs beside its roles, so that it can be seen and governed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from actors.bus.bus import Bus
from actors.config.hot_settings import HotSettings
from actors.launch.metrics_server import serve_metrics
from actors.launch.process import set_log_level
from actors.launch.tracing import traced
from actors.logs.process import run_log_publisher, run_shipper
from actors.nats_monitor.process import run_nats_monitor, traced_messages
from actors.runtime.processes import ProcessService
from actors.settings import Settings
from actors.telemetry.event_log import event_log
from actors.telemetry.identity import ProcessIdentity
from actors.telemetry.labels import limit_labels
from actors.telemetry.process_metrics import LoopLag, describe_process

WITH_GATEWAY = ("up", "gateway")
"""Roles whose gateway serves the metrics."""


@asynccontextmanager
async def observed(
    bus: Bus, hot: HotSettings[Settings], identity: ProcessIdentity
) -> AsyncIterator[ProcessService]:
    """Trace, measure and log this process until the block ends. Enter it before the roles start, so that it
    ends after them. Raises `MetricsPortBusy`."""
    async with AsyncExitStack() as stack:
        settings = hot.settings
        event_log.identity = identity
        hot.on_change("telemetry.log_level", lambda now: set_log_level(now.telemetry), since=hot.base)
        event_log.content = settings.logs.content
        traces = await stack.enter_async_context(traced(bus, settings.telemetry, identity, settings.node.id))
        if traces is not None:
            hot.on_change("telemetry", lambda now: traces.update_settings(now.telemetry), since=settings)
            messages = await stack.enter_async_context(traced_messages(bus, traces))
            hot.on_change("telemetry", lambda now: messages.update_settings(now.telemetry), since=settings)
        describe_process(identity)
        limit_labels(settings.telemetry.max_label_values)
        lag = LoopLag()
        lag.start()
        stack.callback(lag.stop)
        process = ProcessService(bus, identity)
        address = settings.telemetry.metrics
        if address and identity.role not in WITH_GATEWAY:
            process.metrics_url = await stack.enter_async_context(serve_metrics(bus, address))
        await stack.enter_async_context(process.running())
        if identity.role == "up" and settings.logs.mongodb.url:
            await stack.enter_async_context(run_shipper(bus, settings.logs, identity))
        publisher = await stack.enter_async_context(run_log_publisher(bus, settings.logs))
        hot.on_change("logs", lambda now: publisher.update_settings(now.logs), since=settings)
        monitor = await stack.enter_async_context(run_nats_monitor(bus, settings.nats_monitor, identity))
        hot.on_change("nats_monitor", lambda now: monitor.update_settings(now.nats_monitor), since=settings)
        yield process
