"""The cache of responses: what the gateways and the shared bucket hold, and its clearing."""

from __future__ import annotations

import time
from typing import Any

from pydantic import Field
from pydantic_core import to_json

from actors.admin.audit import Changed
from actors.admin.cluster_processes import ClusterProcesses
from actors.admin.requests import ChangeRequest
from actors.bus.bus import Bus
from actors.bus.provision import call_api
from actors.cluster.orders import CacheClear, OrderBook, Orders
from actors.gateway.operation import CallContext, NoFields, Reply
from actors.gateway.response_cache import BUCKET

KEPT_S = 90_000.0
"""A clear is remembered for this long; no response is cached for longer than a day."""
STREAM = f"KV_{BUCKET}"


class ClearCache(ChangeRequest):
    """Makes cached responses unused in all gateways. Without model and namespace: all of them."""

    model: str = Field(default="", max_length=256)
    """Name of the model, as requests name it; empty: all models."""
    namespace: str = Field(default="", max_length=80)
    """The caller whose responses are cleared, or `shared:` and the namespace that callers share; empty: all
    callers."""


class CacheAdmin:
    """The handlers of the operations on the cache."""

    def __init__(self, bus: Bus, orders: OrderBook, processes: ClusterProcesses) -> None:
        self.bus = bus
        self.orders = orders
        self.processes = processes

    async def show(self, request: NoFields, call: CallContext) -> Reply:
        answered = await self.processes.ask("cache.show", {}, "gateway")
        gateways = [{"process": each.process, **(each.data or {})} for each in answered.answers]
        clears = [each.model_dump() for each in self.orders.current.cleared]
        body = {"gateways": gateways, "shared": await self._shared(), "cleared": clears}
        return Reply(body=to_json(body | {"missing": answered.missing}))

    async def _shared(self) -> dict[str, Any]:
        state = (await call_api(self.bus, f"STREAM.INFO.{STREAM}"))["state"]
        return {"entries": state["messages"], "bytes": state["bytes"]}

    async def clear(self, request: ClearCache, call: CallContext) -> Changed:
        """From now on no gateway answers with a response that was stored before and matches. Clearing all of
        them also frees their memory and disk; of the others it is freed when they expire, within a day."""
        before, now = await self._shared(), time.time()
        clear = CacheClear(model=request.model, namespace=request.namespace, at=now)

        def cleared(orders: Orders) -> Orders:
            kept = tuple(
                each for each in orders.cleared if each.at > now - KEPT_S and not _covers(clear, each)
            )
            return orders.model_copy(update={"cleared": (*kept, clear)})

        await self.orders.change(cleared)
        if not request.model and not request.namespace:
            await call_api(self.bus, f"STREAM.PURGE.{STREAM}")
        return Changed(
            target=f"model {request.model or 'any'}, namespace {request.namespace or 'any'}",
            before={"shared": before},
            after={"shared": await self._shared(), "cleared_at": now},
            body={"model": request.model, "namespace": request.namespace, "cleared_at": now},
            about={"model": request.model},
        )


def _covers(new: CacheClear, old: CacheClear) -> bool:
    """Whether a later clear makes an earlier one needless."""
    return new.model in ("", old.model) and new.namespace in ("", old.namespace)
