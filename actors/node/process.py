"""Runs a node in this process: its actor, its service on the bus, its entry in the registry."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from actors import __version__
from actors.backends.base import Backend
from actors.bus.bus import Bus
from actors.bus.subjects import NodeAddress
from actors.node.node import Node
from actors.node.settings import NodeSettings
from actors.runtime.actor_host import ActorRef
from actors.runtime.service import Endpoint, Service, ServiceInfo, decode_model
from actors.runtime.system import ActorSystem
from orchestration.messages import (
    Generation,
    LabelNode,
    ListPulls,
    LoadModel,
    PinModel,
    PullModel,
    UnloadModel,
)


@asynccontextmanager
async def run_node(
    bus: Bus,
    backend: Backend,
    settings: NodeSettings,
    system: ActorSystem,
    models_folder: Path | None = None,
) -> AsyncIterator[Node]:
    """Serve until the block ends or the node is drained. Then let generations in progress end, or move them
    to other nodes, and leave the registry. The node's `drained` is set at the end. Operators may
    pull models to `models_folder`."""
    node = Node(bus, backend, settings, models_folder)
    ref = await system.spawn(Node, lambda: node, name=f"node {node.id}")
    info = ServiceInfo(
        name="orchestra-node",
        version=__version__,
        description=f"Serves models with the {backend.name} backend",
        metadata={"node": node.id, "backend": backend.name},
    )
    service = Service(bus, info)
    try:
        address = NodeAddress(node.id)
        for name, subject, kind in (
            ("generate", address.generate, Generation),
            ("load", address.load, LoadModel),
            ("unload", address.unload, UnloadModel),
            ("pin", address.pin, PinModel),
            ("label", address.label, LabelNode),
            ("pull", address.pull, PullModel),
            ("pulls", address.pulls, ListPulls),
        ):
            decode = decode_model(kind)
            await service.add(Endpoint(name=name, subject=subject, ref=ref, decode=decode, exclusive=True))
        await service.start()
        bus.local_nodes[node.id] = ref
        await node.join()
        draining = asyncio.ensure_future(_drain_on_request(node, ref, service))
        try:
            yield node
        finally:
            if node.drain_requested.is_set():
                await draining
            draining.cancel()
    finally:
        await _leave(node, ref, service)


async def _drain_on_request(node: Node, ref: ActorRef, service: Service) -> None:
    await node.drain_requested.wait()
    await _leave(node, ref, service)


async def _leave(node: Node, ref: ActorRef, service: Service) -> None:
    if not node.drained.is_set():
        await node.leave()
        node.bus.local_nodes.pop(node.id, None)
        await service.leave()
        await ref.host.drain(node.settings.drain_timeout_s)
        node.drained.set()
