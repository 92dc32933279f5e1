"""Lets operators see and reset the breakers of this process, and hold some of them open."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from actors.bus.bus import Bus
from actors.cluster.orders import OrderBook
from actors.runtime.commands import CommandResponder, NoParameters
from orchestration.placement import ReplicaIndex
from orchestration.wire import Wire

MAX_SHOWN = 1_000
"""Maximum breakers in one answer, those that are not closed first."""


def breaker_name(model: str, node: str) -> str:
    """The name of a breaker in the standing orders."""
    return f"{model} on {node}"


class BreakerFilter(Wire):
    """Which breakers are meant: those of a model, a node or both; an empty name is any."""

    model: str = ""
    node: str = ""


class BreakerControl:
    """Follows the standing orders for the breakers of `index`, and answers the commands on breakers."""

    def __init__(
        self,
        bus: Bus,
        orders: OrderBook,
        index: ReplicaIndex,
        place_again: Callable[[str], None],
        part: str,
    ) -> None:
        """`place_again` is called with a model whose breakers have changed."""
        self.orders = orders
        self.index = index
        self._place_again = place_again
        self._responder = CommandResponder(bus, part)

    async def start(self) -> None:
        self.orders.on_change.append(self._follow)
        self._follow()
        await self._responder.serve("breakers.list", NoParameters, self._list)
        await self._responder.serve("breakers.reset", BreakerFilter, self._reset)

    async def stop(self) -> None:
        if self._follow in self.orders.on_change:
            self.orders.on_change.remove(self._follow)
        await self._responder.stop()

    def _follow(self) -> None:
        held = frozenset(self.orders.current.open_breakers)
        for model in self.index.hold_open(held, time.monotonic()):
            self._place_again(model)

    def _list(self, request: NoParameters) -> list[dict[str, Any]]:
        now = time.monotonic()
        rows = [
            {
                "model": model,
                "node": node,
                "state": replica.breaker.state(now).value,
                "held_open": replica.breaker.held_open,
                "opens_in_s": round(max(0.0, replica.breaker.until - now), 3),
                "limited": replica.limit is not None and replica.limit.until > now,
            }
            for model, replicas in self.index.replicas.items()
            for node, replica in replicas.items()
        ]
        rows.sort(key=lambda row: (row["state"] == "closed", row["model"], row["node"]))
        return rows[:MAX_SHOWN]

    def _reset(self, request: BreakerFilter) -> list[str]:
        """Close the breakers of a model, a node or both; returns those that were not closed."""
        closed = self.index.reset_breakers(request.model, request.node, time.monotonic())
        for each in sorted({name.rpartition(" on ")[0] for name in closed}):
            self._place_again(each)
        return closed
