"""Patterns: which there are, and which operators have disabled."""

from __future__ import annotations

import time

from pydantic import Field
from pydantic_core import to_json

from actors.admin.audit import Changed
from actors.admin.requests import ChangeRequest, NotThere
from actors.cluster.orders import Order, OrderBook, Orders, add_order, remove_orders
from actors.gateway.operation import CallContext, NoFields, Reply
from orchestration.patterns import Catalogue
from orchestration.virtual_models import pattern_name


class PatternChange(ChangeRequest):
    """A change of one pattern."""

    pattern: str = Field(min_length=1, max_length=64)
    """Name of the pattern, such as `debate`."""


class PatternsAdmin:
    """The handlers of the operations on patterns. Gateways refuse requests that name a disabled pattern; runs
    that were accepted, and the choices of `auto`, are not affected."""

    def __init__(self, orders: OrderBook, catalogue: Catalogue) -> None:
        self.orders = orders
        self.names = sorted(filter(None, map(pattern_name, catalogue.virtual_models)))

    async def list_patterns(self, request: NoFields, call: CallContext) -> Reply:
        disabled = self.orders.current.disabled_patterns
        names = sorted({*self.names, *disabled})
        rows = [
            {"name": name, "disabled": disabled[name].model_dump() if name in disabled else None}
            for name in names
        ]
        return Reply(body=to_json({"object": "list", "data": rows, "next": ""}))

    async def disable(self, request: PatternChange, call: CallContext) -> Changed:
        """Raises `NotThere` for a pattern that this gateway does not have."""
        name = request.pattern
        if name not in self.names:
            raise NotThere.of("pattern", name, self.names, "pattern")
        order = Order(by=call.operator, at=time.time(), reason=request.reason)
        return _changed(name, *await self.orders.change(add_order("disabled_patterns", name, order)))

    async def enable(self, request: PatternChange, call: CallContext) -> Changed:
        """Raises `NotThere` for a pattern that is neither there nor disabled."""
        name = request.pattern
        if name not in self.names and name not in self.orders.current.disabled_patterns:
            raise NotThere.of("pattern", name, self.names, "pattern")
        edit = remove_orders("disabled_patterns", name.__eq__)
        return _changed(name, *await self.orders.change(edit))


def _changed(name: str, before: Orders, after: Orders) -> Changed:
    was, now = name in before.disabled_patterns, name in after.disabled_patterns
    return Changed(
        target=name,
        before={"disabled": was},
        after={"disabled": now},
        changed=was != now,
        body={"name": name, "disabled": now},
        about={"pattern": name},
    )
