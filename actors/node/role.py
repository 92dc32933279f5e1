"""A node as a role of a process: its actor, its service on the bus, its place in the registry."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from actors import __version__
from actors.node.backends.base import Backend
from actors.node.node import Node
from actors.node.settings import NodeSettings
from actors.runtime.bus import Bus
from actors.runtime.service import Endpoint, Service, ServiceInfo, decode_model
from actors.runtime.subjects import NodeAddress
from actors.runtime.system import ActorSystem
from orchestration.messages import Generation


@asynccontextmanager
async def run_node(
    bus: Bus, backend: Backend, settings: NodeSettings, system: ActorSystem
) -> AsyncIterator[Node]:
    """Serve until the block ends; then vanish from the registry and finish what runs."""
    node = Node(bus, backend, settings)
    ref = await system.spawn(Node, lambda: node, name=f"node {node.id}")
    info = ServiceInfo(
        name="orchestra-node",
        version=__version__,
        description=f"Serves models with the {backend.name} backend",
        metadata={"node": node.id, "backend": backend.name},
    )
    service = Service(bus, info)
    try:
        await service.add(
            Endpoint(
                name="generate",
                subject=NodeAddress(node.id).generate,
                ref=ref,
                decode=decode_model(Generation),
                exclusive=True,
            )
        )
        await service.start()
        await node.join()
        yield node
    finally:
        await node.leave()
        await service.leave()
        await ref.cell.drain(settings.drain_timeout_s)
