"""Runs a dispatcher in a process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from actors.bus.bus import Bus
from actors.cluster.registry import Registry
from actors.dispatcher.dispatcher import Dispatcher
from actors.dispatcher.settings import DispatcherSettings
from actors.runtime.system import ActorSystem


class RunningDispatcher:
    """The dispatcher of a process, which is another one after a crash."""

    def __init__(self, bus: Bus, registry: Registry, settings: DispatcherSettings) -> None:
        self.bus = bus
        self.registry = registry
        self.settings = settings
        self.dispatcher: Dispatcher

    def make(self) -> Dispatcher:
        """A dispatcher with the settings of now."""
        self.dispatcher = Dispatcher(self.bus, self.registry, self.settings)
        return self.dispatcher

    def update_settings(self, settings: DispatcherSettings) -> None:
        """Use other settings from now on."""
        self.settings = settings
        self.dispatcher.update_settings(settings)


@asynccontextmanager
async def run_dispatcher(
    bus: Bus, settings: DispatcherSettings, system: ActorSystem, registry: Registry | None = None
) -> AsyncIterator[Dispatcher]:
    """Dispatch until the block ends, then finish what was pulled, for at most `drain_timeout_s`."""
    async with start_dispatcher(bus, settings, system, registry) as running:
        yield running.dispatcher


@asynccontextmanager
async def start_dispatcher(
    bus: Bus, settings: DispatcherSettings, system: ActorSystem, registry: Registry | None = None
) -> AsyncIterator[RunningDispatcher]:
    """Like `run_dispatcher`, with settings that can be changed."""
    registry = registry or Registry(bus)
    await registry.start()
    try:
        running = RunningDispatcher(bus, registry, settings)
        ref = await system.spawn(Dispatcher, running.make, name="dispatcher")
        try:
            yield running
        finally:
            await running.dispatcher.leave()
            await ref.host.drain(settings.drain_timeout_s)
    finally:
        await registry.stop()
