"""Runs generations on nodes: places them, hedges and moves them, and watches the nodes that have some."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from actors.bus.bus import Bus
from actors.cluster.registry import Registry
from actors.placement.breaker_control import BreakerControl
from actors.placement.failover import Failover
from actors.placement.hedger import Hedger
from actors.placement.hung_nodes import HungNodes
from actors.placement.in_flight import InFlight
from actors.placement.job import Job
from actors.placement.metrics import breaker_states
from actors.placement.node_client import NodeClient
from actors.placement.node_health import NodeHealthMonitor
from actors.placement.pending_queue import PendingQueue
from actors.placement.placer import Placer
from actors.placement.settings import PlacementSettings
from actors.telemetry.labels import NODES
from orchestration.messages import NodeInfo


class Executor:
    """The parts of one process that work on its `jobs`, of which `pending` wait.

    `place_again` is called with a model when its waiting generations should be placed again.
    """

    def __init__(
        self,
        bus: Bus,
        registry: Registry,
        settings: PlacementSettings,
        jobs: Mapping[str, Job],
        pending: PendingQueue[Any],
        place_again: Callable[[str], None],
        part: str = "direct",
    ) -> None:
        """`part` is what operators call this part of the process."""
        self.bus = bus
        self.registry = registry
        self.in_flight = InFlight()
        self.placer = Placer(registry, self.in_flight, pending, settings, place_again)
        self.breaker_control = BreakerControl(
            bus, registry.orders, self.placer.chooser.index, place_again, part
        )
        self.node_client = NodeClient(bus, self.in_flight, self.placer, settings.first_output)
        self.hedger = Hedger(self.placer, self.node_client, settings.hedging)
        self.failover = Failover(bus, self.placer, self.hedger, self.live_nodes, settings)
        self.hung_nodes = HungNodes(self.placer, self.node_client, jobs)
        self.node_health = NodeHealthMonitor(
            bus, interval_s=settings.ping_interval_s, misses=settings.ping_misses
        )
        self.node_health.on_silent = [self.placer.mark_silent, self.in_flight.fail_node]
        self.node_health.on_reconnect = [self._on_reconnect]
        self.node_health.on_back = [self.placer.mark_responsive]
        self._on_gone = (self.in_flight.fail_node, self.node_health.remove, NODES.left)

    def update_settings(self, settings: PlacementSettings) -> None:
        """Use other settings from now on; calls in progress keep their limits of time."""
        self.placer.chooser.update_settings(settings.breaker)
        self.placer.model_scheduler.hold_s = settings.group_hold_s
        self.node_client.first_outputs.settings = settings.first_output
        self.hedger.update_settings(settings.hedging)
        self.failover.update_settings(settings)
        self.registry.fallbacks = settings.fallbacks

    async def start(self) -> list[Coroutine[Any, Any, None]]:
        """Follow the registry. Returns the loops that the caller runs until `stop`."""
        await self.node_health.start()
        self.placer.start()
        await self.breaker_control.start()
        self.registry.on_gone += self._on_gone
        self.registry.on_node.append(_still_there)
        breaker_states.indexes.append(self.placer.chooser.index)
        return [self.hung_nodes.run(), self.node_health.watch(self.in_flight)]

    async def stop(self) -> None:
        """Follow the registry no more; the caller has ended the loops."""
        for callback in self._on_gone:
            if callback in self.registry.on_gone:
                self.registry.on_gone.remove(callback)
        if _still_there in self.registry.on_node:
            self.registry.on_node.remove(_still_there)
        if self.placer.chooser.index in breaker_states.indexes:
            breaker_states.indexes.remove(self.placer.chooser.index)
        await self.breaker_control.stop()
        self.placer.stop()
        await self.node_health.stop()

    def _on_reconnect(self, node: str) -> None:
        """Answers of `node` may be lost, unless it is in this process."""
        if node not in self.bus.local_nodes:
            self.in_flight.fail_disconnected(node)

    def live_nodes(self, model: str) -> set[str]:
        """The nodes that serve `model` and answer pings."""
        return {node.id for node in self.registry.serving(model)} - self.node_health.silent


def _still_there(node: str, info: NodeInfo | None) -> None:
    """A node that came back keeps its metrics."""
    if info is not None:
        NODES.back(node)
