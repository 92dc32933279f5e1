"""What every process runs beside its roles, so that it can be seen and governed."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from actors.bus.bus import Bus
from actors.settings import Settings
from actors.telemetry.event_log import event_log
from actors.telemetry.identity import ProcessIdentity
from actors.telemetry.telemetry import start_tracing


@asynccontextmanager
async def observed(bus: Bus, settings: Settings, identity: ProcessIdentity) -> AsyncIterator[None]:
    """Trace, measure and log this process until the block ends. Enter it before the roles start, so that it
    ends after them."""
    async with AsyncExitStack() as stack:
        event_log.identity = identity
        provider = start_tracing(settings.telemetry)
        if provider is not None:
            stack.callback(provider.shutdown)
        yield
