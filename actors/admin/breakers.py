"""Circuit breakers, as each process that places generations has them: seen, reset, and held open."""

from __future__ import annotations

import time
from collections import defaultdict
from typing import Any

from pydantic import Field
from pydantic_core import to_json

from actors.admin.audit import Changed
from actors.admin.cluster_processes import ClusterProcesses
from actors.admin.requests import ChangeRequest, NotThere, PageRequest, page_of
from actors.cluster.orders import Order, add_order, remove_orders
from actors.cluster.registry import Registry
from actors.gateway.operation import CallContext, Reply
from actors.placement.breaker_control import breaker_name
from orchestration.errors import InvalidRequest, UnknownModel

PLACES = ("dispatcher", "gateway", "agents")
"""Roles that place generations."""


class BreakersPage(PageRequest):
    """A page of breakers."""

    closed: bool = False
    """Also list breakers that are closed everywhere."""


class ResetBreakers(ChangeRequest):
    """Closes breakers in all processes. A model, a node or both are needed."""

    model: str = Field(default="", max_length=256)
    """Name of the model; empty: all models of the node."""
    node: str = Field(default="", max_length=128)
    """Id of the node; empty: all nodes of the model."""


class HoldBreaker(ChangeRequest):
    """Holds a breaker open in all processes: the model gets no generations on the node."""

    model: str = Field(min_length=1, max_length=256)
    """Name of the model."""
    node: str = Field(min_length=1, max_length=128)
    """Id of the node."""


class BreakersAdmin:
    """The handlers of the operations on breakers."""

    def __init__(self, registry: Registry, processes: ClusterProcesses) -> None:
        self.registry = registry
        self.processes = processes

    async def list_breakers(self, request: BreakersPage, call: CallContext) -> Reply:
        """Each breaker with its state in every process; `missing` are processes that did not answer."""
        answered = await self.processes.ask("breakers.list", {}, "dispatcher")
        states: dict[str, list[dict[str, Any]]] = defaultdict(list)
        for answer in answered.answers:
            for row in answer.data or ():
                name = breaker_name(row["model"], row["node"])
                states[name].append({**row, "process": answer.process, "part": answer.part})
        orders = self.registry.orders.current.open_breakers
        names = [
            name
            for name in sorted(states.keys() | orders.keys())
            if request.closed or name in orders or any(row["state"] != "closed" for row in states[name])
        ]

        def shown(name: str) -> dict[str, Any]:
            model, _, node = name.rpartition(" on ")
            order = orders.get(name)
            held = None if order is None else order.model_dump()
            return {"name": name, "model": model, "node": node, "held_open": held, "states": states[name]}

        page = page_of(names, request, str, shown)
        return Reply(body=to_json(page | {"missing": answered.missing}))

    async def reset(self, request: ResetBreakers, call: CallContext) -> Changed:
        """Close breakers, also those that operators hold open."""
        if not request.model and not request.node:
            raise InvalidRequest("name a model, a node or both")

        edit = remove_orders("open_breakers", lambda name: _matches(name, request.model, request.node))
        before, after = await self.registry.orders.change(edit)
        released = sorted(before.open_breakers.keys() - after.open_breakers.keys())
        wanted = {"model": request.model, "node": request.node}
        answered = await self.processes.ask("breakers.reset", wanted, "dispatcher")
        closed = {
            f"{answer.process or 'process'} {answer.part}": answer.data
            for answer in answered.answers
            if answer.data
        }
        return Changed(
            target=" on ".join(filter(None, (request.model, request.node))),
            before={"held_open": released, "open": closed},
            after={"held_open": [], "open": {}},
            changed=bool(released or closed),
            body={"released": released, "closed": closed, "missing": answered.missing},
            about={"model": request.model, "node": request.node},
        )

    async def hold(self, request: HoldBreaker, call: CallContext) -> Changed:
        """Hold a breaker open until it is reset. Raises `UnknownModel`, and `NotThere` for a node that does
        not serve the model."""
        name = breaker_name(request.model, request.node)
        serving = [node.id for node in self.registry.serving(request.model)]
        if not serving:
            raise UnknownModel.of(request.model, list(self.registry.cards))
        if request.node not in serving:
            raise NotThere.of("node", request.node, serving, "node", f"with model {request.model!r}")
        order = Order(by=call.operator, at=time.time(), reason=request.reason)
        before, after = await self.registry.orders.change(add_order("open_breakers", name, order))
        return Changed(
            target=name,
            before={"held_open": name in before.open_breakers},
            after={"held_open": True},
            changed=name not in before.open_breakers,
            body={"name": name, "held_open": after.open_breakers[name].model_dump()},
            about={"model": request.model, "node": request.node},
        )


def _matches(name: str, model: str, node: str) -> bool:
    its_model, _, its_node = name.rpartition(" on ")
    return model in ("", its_model) and node in ("", its_node)
