"""Models and their replicas: loaded, unloaded, pinned in memory, and pulled to nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import Field
from pydantic_core import to_json

from actors.admin.audit import Changed
from actors.admin.nodes import NodesAdmin, ask_node
from actors.admin.requests import ChangeRequest, PageRequest, page_of
from actors.bus.subjects import NodeAddress
from actors.cluster.orders import GENERATIONS
from actors.gateway.operation import CallContext, Reply
from actors.models.catalogue import catalogue
from orchestration.errors import OrchestraError, UnknownModel
from orchestration.messages import (
    ListPulls,
    LoadModel,
    LoadResult,
    ModelPull,
    ModelPulls,
    NodeInfo,
    PinModel,
    PullModel,
    UnloadModel,
    Wire,
)

LOAD_S = 600.0
"""Maximum time for a node to load or unload a model."""
PULLS_S = 2.0
"""Time for a node to tell its pulls."""


class ModelChange(ChangeRequest):
    """A change of a model on its nodes."""

    model: str = Field(min_length=1, max_length=256)
    """Name of the model."""
    node: str = Field(default="", max_length=128)
    """Id of one node; empty: all nodes that offer the model."""


class PinChange(ModelChange):
    """Keeps a model in memory, whatever else is asked for."""

    pinned: bool = True
    """False lets it be evicted again."""


class PullToNode(ChangeRequest):
    """Downloads a model of the catalogue to a node, which then offers it."""

    model: str = Field(min_length=1, max_length=256)
    """Name of the model in the catalogue."""
    node: str = Field(min_length=1, max_length=128)
    """Id of the node."""


class ListModelPulls(Wire):
    """The pulls of one node or of all."""

    node: str = Field(default="", max_length=128)
    """Id of the node; empty: all nodes."""


class ModelsAdmin:
    """The handlers of the operations on models."""

    def __init__(self, nodes: NodesAdmin) -> None:
        self.bus = nodes.bus
        self.nodes = nodes
        self.registry = nodes.registry

    async def list_models(self, request: PageRequest, call: CallContext) -> Reply:
        names = sorted(self.registry.known.keys() | self.registry.cards.keys())
        return Reply(body=to_json(page_of(names, request, str, self._row)))

    def _row(self, name: str) -> dict[str, Any]:
        card = self.registry.cards.get(name) or self.registry.known.get(name)
        paused = self.registry.orders.current.paused.get(f"{GENERATIONS}{name}")
        replicas = [self._replica(node, name) for node in self.registry.serving(name)]
        return {
            "name": name,
            "kind": card.kind if card else "",
            "context_tokens": card.context_tokens if card else 0,
            "parameters": card.parameters if card else 0,
            "memory_bytes": card.memory_bytes if card else 0,
            "paused": None if paused is None else paused.model_dump(),
            "replicas": sorted(replicas, key=lambda replica: str(replica["node"])),
        }

    @staticmethod
    def _replica(node: NodeInfo, name: str) -> dict[str, Any]:
        card = next(card for card in node.models if card.name == name)
        return {
            "node": node.id,
            "loaded": card.loaded,
            "pinned": card.pinned,
            "slots": node.slots,
            "running": node.running,
        }

    async def load(self, request: ModelChange, call: CallContext) -> Changed:
        """Load the model into the memory of its nodes; idle models leave for it."""
        wanted = LoadModel(model=request.model)
        return await self._on_nodes(request, "loaded", wanted, lambda node: NodeAddress(node).load)

    async def unload(self, request: ModelChange, call: CallContext) -> Changed:
        """Free the memory of the model, once nothing runs on it. It stays on offer."""
        wanted = UnloadModel(model=request.model)
        return await self._on_nodes(request, "loaded", wanted, lambda node: NodeAddress(node).unload)

    async def pin(self, request: PinChange, call: CallContext) -> Changed:
        """Load the model and keep it in memory as long as its node lives."""
        wanted = PinModel(model=request.model, pinned=request.pinned)
        return await self._on_nodes(request, "pinned", wanted, lambda node: NodeAddress(node).pin)

    async def _on_nodes(
        self, request: ModelChange, state: str, wanted: Wire, subject: Callable[[str], str]
    ) -> Changed:
        """Ask the nodes at once. Raises the first error when all of them fail."""
        nodes = self._nodes_of(request)
        before = {node.id: getattr(_card(node, request.model), state) for node in nodes}

        async def ask(node: NodeInfo) -> LoadResult:
            answer = await ask_node(self.bus, node.id, subject(node.id), wanted, LOAD_S)
            return LoadResult.model_validate_json(answer)

        results = await asyncio.gather(*(_result(node.id, ask(node)) for node in nodes))
        failures = [found for _, found in results if isinstance(found, OrchestraError)]
        if len(failures) == len(results):
            raise failures[0]
        rows = [
            {"node": node, "error": found.body().model_dump(exclude_none=True)}
            if isinstance(found, OrchestraError)
            else found.model_dump()
            for node, found in results
        ]
        return Changed(
            target=request.model,
            before={state: before},
            after={"results": rows},
            changed=any(isinstance(found, LoadResult) and found.changed for _, found in results),
            body={"model": request.model, "results": rows},
            about={"model": request.model},
        )

    def _nodes_of(self, request: ModelChange) -> list[NodeInfo]:
        """The nodes of the request that offer its model. Raises `UnknownModel` and `NotThere`."""
        if request.node:
            node = self.nodes.node(request.node, "node")
            if not node.serves(request.model):
                raise UnknownModel.of(request.model, [card.name for card in node.models])
            return [node]
        nodes = self.registry.serving(request.model)
        if not nodes:
            raise UnknownModel.of(request.model, list(self.registry.cards))
        return sorted(nodes, key=lambda node: node.id)

    async def pull(self, request: PullToNode, call: CallContext) -> Changed:
        """Begin a pull, or find the one that runs. Raises `UnknownModel` for a model that is not in the
        catalogue, and the node's error when it has no room."""
        if request.model not in catalogue():
            raise UnknownModel.of(request.model, list(catalogue()))
        node = self.nodes.node(request.node, "node")
        earlier = {pull.id for pull in await self._pulls_of(node.id)}
        subject = NodeAddress(node.id).pull
        answer = await ask_node(self.bus, node.id, subject, PullModel(model=request.model))
        pull = ModelPull.model_validate_json(answer)
        return Changed(
            target=f"{request.model} on {node.id}",
            before={"offered": node.serves(request.model)},
            after={"pull": pull.id},
            changed=pull.id not in earlier,
            body=pull.model_dump(mode="json"),
            status=202,
            about={"model": request.model, "node": node.id},
        )

    async def pulls(self, request: ListModelPulls, call: CallContext) -> Reply:
        """The latest pulls of each node. `missing` are nodes that did not answer in time."""
        nodes = [self.nodes.node(request.node, "node").id] if request.node else sorted(self.nodes.nodes())
        results = await asyncio.gather(*(_result(node, self._pulls_of(node)) for node in nodes))
        found = [pull for _, pulls in results if not isinstance(pulls, OrchestraError) for pull in pulls]
        found.sort(key=lambda pull: pull.started_at, reverse=True)
        missing = [node for node, pulls in results if isinstance(pulls, OrchestraError)]
        rows = [pull.model_dump(mode="json") for pull in found]
        return Reply(body=to_json({"object": "list", "data": rows, "missing": missing}))

    async def _pulls_of(self, node: str) -> tuple[ModelPull, ...]:
        answer = await ask_node(self.bus, node, NodeAddress(node).pulls, ListPulls(), PULLS_S)
        return ModelPulls.model_validate_json(answer).pulls


async def _result(node: str, call: Awaitable[Any]) -> tuple[str, Any]:
    """The node, and what the call returns or raises."""
    try:
        return node, await call
    except OrchestraError as error:
        return node, error


def _card(node: NodeInfo, model: str) -> Any:
    return next(card for card in node.models if card.name == model)
