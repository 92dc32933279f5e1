"""Answers operators for one gateway, and frees its cache when an operator clears all of it."""

from __future__ import annotations

from typing import Any

from actors.bus.bus import Bus
from actors.cluster.orders import OrderBook
from actors.gateway.metrics import CACHE
from actors.gateway.response_cache import ResponseCache
from actors.runtime.commands import CommandResponder, NoParameters


class GatewayCommands:
    """Responses that were cleared are not used any more, whether or not their memory is free."""

    def __init__(self, bus: Bus, cache: ResponseCache, orders: OrderBook) -> None:
        self.cache = cache
        self.orders = orders
        self._responder = CommandResponder(bus, "gateway")
        self._cleared_at = 0.0

    async def start(self) -> None:
        self._cleared_at = self._clear_of_all()
        self.orders.on_change.append(self._follow)
        await self._responder.serve("cache.show", NoParameters, self._show)

    async def stop(self) -> None:
        if self._follow in self.orders.on_change:
            self.orders.on_change.remove(self._follow)
        await self._responder.stop()

    def _follow(self) -> None:
        at = self._clear_of_all()
        if at > self._cleared_at:
            self._cleared_at = at
            self.cache.clear()

    def _clear_of_all(self) -> float:
        clears = (each.at for each in self.orders.current.cleared if not each.model and not each.namespace)
        return max(clears, default=0.0)

    def _show(self, request: NoParameters) -> dict[str, Any]:
        counted = {
            sample.labels["result"]: int(sample.value)
            for metric in CACHE.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        }
        settings = self.cache.settings
        return {
            "enabled": settings.enabled,
            "entries": len(self.cache.cache),
            "bytes": self.cache.cache.size,
            "max_entries": settings.max_entries,
            "max_bytes": settings.max_bytes,
            "evicted": self.cache.cache.evicted,
            "requests": counted,
        }
