"""Runs a dispatcher in a process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from actors.bus.bus import Bus
from actors.cluster.registry import Registry
from actors.dispatcher.dispatcher import Dispatcher
from actors.dispatcher.settings import DispatcherSettings
from actors.runtime.system import ActorSystem


@asynccontextmanager
async def run_dispatcher(
    bus: Bus, settings: DispatcherSettings, system: ActorSystem, registry: Registry | None = None
) -> AsyncIterator[Dispatcher]:
    """Dispatch until the block ends, then finish what was pulled, for at most `drain_timeout_s`."""
    registry = registry or Registry(bus)
    await registry.start()
    try:
        made: list[Dispatcher] = []

        def make() -> Dispatcher:
            made[:] = [Dispatcher(bus, registry, settings)]
            return made[0]

        ref = await system.spawn(Dispatcher, make, name="dispatcher")
        try:
            yield made[0]
        finally:
            await made[0].leave()
            await ref.host.drain(settings.drain_timeout_s)
    finally:
        await registry.stop()
