"""Nodes, as operators see and change them."""

from __future__ import annotations

from typing import Any

from pydantic import Field
from pydantic_core import to_json

from actors.admin.requests import NotThere, PageRequest, page_of
from actors.bus.bus import Bus
from actors.cluster.registry import Registry
from actors.gateway.operation import CallContext, Reply
from orchestration.messages import NodeInfo, Wire


class NodeId(Wire):
    """The id of a node."""

    id: str = Field(min_length=1, max_length=128)
    """Id of the node."""


class NodesAdmin:
    """The handlers of the operations on nodes."""

    def __init__(self, bus: Bus, registry: Registry) -> None:
        self.bus = bus
        self.registry = registry

    def nodes(self) -> dict[str, NodeInfo]:
        """The live nodes by id, those that drain included."""
        every = (*self.registry.nodes.values(), *self.registry.draining.values())
        return {node.id: node for node in every}

    def node(self, node_id: str) -> NodeInfo:
        """Raises `NotThere` with the nodes that are there."""
        nodes = self.nodes()
        if node_id not in nodes:
            raise NotThere.of("live node", node_id, nodes, "id")
        return nodes[node_id]

    async def list_nodes(self, request: PageRequest, call: CallContext) -> Reply:
        nodes = sorted(self.nodes().values(), key=lambda node: node.id)
        return Reply(body=to_json(page_of(nodes, request, lambda node: node.id, node_summary)))

    async def inspect(self, request: NodeId, call: CallContext) -> Reply:
        return Reply(body=to_json(node_details(self.node(request.id))))


def node_summary(node: NodeInfo) -> dict[str, Any]:
    """A node in a list."""
    return {
        "id": node.id,
        "state": "draining" if node.draining else "serving",
        "backend": node.backend,
        "models": [card.name for card in node.models],
        "loaded": [card.name for card in node.models if card.loaded],
        "labels": node.labels,
        "slots": node.slots,
        "running": node.running,
        "started_at": node.started_at,
    }


def node_details(node: NodeInfo) -> dict[str, Any]:
    """Everything that is known of a node."""
    state = "draining" if node.draining else "serving"
    return {"state": state} | node.model_dump(mode="json")
