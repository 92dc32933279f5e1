"""Traces this process, and agrees with the others on which traces to keep."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from actors.bus.bus import Bus, Message
from actors.bus.subjects import TRACES_KEPT_SUBJECT
from actors.installation.optional_imports import needs_extra
from actors.telemetry.event_log import event_log
from actors.telemetry.identity import ProcessIdentity
from actors.telemetry.settings import TelemetrySettings
from orchestration.errors import OrchestraError

if TYPE_CHECKING:
    from actors.telemetry.otlp import Telemetry

log = logging.getLogger(__name__)


@asynccontextmanager
async def traced(
    bus: Bus, settings: TelemetrySettings, identity: ProcessIdentity, node: str = ""
) -> AsyncIterator[Telemetry | None]:
    """Export spans and log records of this process until the block ends, if an endpoint is set. `node` is
    the id of its node, if it has one.

    Raises `ExtraMissing` for gRPC without its package.
    """
    if not settings.otlp_endpoint:
        yield None
        return
    from actors.telemetry.otlp import start_telemetry  # it takes 50 ms, which others need not spend

    with needs_extra("otlp-grpc", "telemetry.otlp_protocol = grpc"):
        telemetry = start_telemetry(settings, identity, node)
    assert telemetry is not None
    tail = telemetry.tail
    tail.on_keep = lambda trace: _publish(bus, trace)

    def on_kept(message: Message) -> None:
        for trace in message.data.decode(errors="replace").split()[:100]:
            tail.keep(trace)

    subscription = await bus.subscribe(TRACES_KEPT_SUBJECT, on_kept)
    event_log.add_sink(telemetry.logs.record)
    try:
        yield telemetry
    finally:
        event_log.remove_sink(telemetry.logs.record)
        await subscription.unsubscribe()
        await _stop(telemetry)


def _publish(bus: Bus, trace: str) -> None:
    try:
        bus.post(TRACES_KEPT_SUBJECT, trace.encode())
    except OrchestraError as error:
        log.debug("other processes do not know that trace %s is kept: %s", trace, error)


async def _stop(telemetry: Telemetry) -> None:
    """Stop in a thread that does not keep the process from ending: a collector may never answer."""
    loop, stopped = asyncio.get_running_loop(), asyncio.Event()

    def stop() -> None:
        try:
            telemetry.stop()
        finally:
            loop.call_soon_threadsafe(stopped.set)

    threading.Thread(target=stop, name="telemetry-stop", daemon=True).start()
    await stopped.wait()
