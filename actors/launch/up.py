"""`orchestra up`: one of each role in one process, beside an embedded nats-server."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from actors.backends.base import Backend
from actors.bus.declarations import shipped_declaration
from actors.bus.provision import apply_when_ready
from actors.bus.storage import report_full_disk
from actors.cluster.formation import has_enough_replicas, join_cluster
from actors.dispatcher.process import run_dispatcher
from actors.embedding.embedder import Embedder
from actors.gateway.http import HttpServer
from actors.launch.process import connected, raise_when_set
from actors.nats_server import EmbeddedNats, NatsPortInUse, NatsServerSettings
from actors.nats_server.lock import require_unused
from actors.node.backend_factory import onnx_backend
from actors.node.process import run_node
from actors.runtime.system import ActorSystem
from actors.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Awaitable

log = logging.getLogger(__name__)

USUAL_NATS_PORT = 4222
NO_BACKENDS: Mapping[str, Backend] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Up:
    """A running `orchestra up`: where it listens, and what may end it."""

    nats_url: str
    http_url: str
    models: tuple[str, ...]
    watches: tuple[Callable[[], Awaitable[None]], ...]


@asynccontextmanager
async def run_up(
    settings: Settings,
    folders: Sequence[Path],
    embedder: Embedder | None = None,
    http: HttpServer | None = None,
    backends: Mapping[str, Backend] = NO_BACKENDS,
) -> AsyncIterator[Up]:
    """Everything, until the block ends; then drained from the front: gateway, agents, dispatcher, node.

    `folders` are the models to serve; none means no node. `embedder` is the agents' own; `http` holds
    the HTTP port already. `backends` are of further nodes here, by the nodes' ids. Raises
    `OrchestraError`s that say what is in the way: a busy port, a data folder that is in use or cannot be
    written, a model that is corrupt.
    """
    from actors.agents.process import run_agents
    from actors.agents.services import AgentOptions
    from actors.gateway.process import run_gateway
    from actors.jobs.process import run_webhooks
    from actors.launch.build_tools import build_tools
    from actors.patterns.plugins import load_catalogue

    http = http or HttpServer(settings.gateway)
    catalogue = load_catalogue(settings.patterns)
    async with AsyncExitStack() as stack:
        watches: list[Callable[[], Awaitable[None]]] = []
        url, server = settings.nats.url, None
        if not url:
            server = await stack.enter_async_context(await _server(settings))
            watches.append(server.watch)
            url = server.url
        system = ActorSystem()
        watches.append(
            raise_when_set(system.actor_failed, "an actor crashed again and again; see the log above")
        )
        bus = await stack.enter_async_context(connected(settings, url, "orchestra-up"))
        if server is not None:
            await stack.enter_async_context(report_full_disk(bus, server.disk_problem))
        if server is not None and server.settings.join:
            watches.append(await stack.enter_async_context(join_cluster(bus, server)))
        else:
            await apply_when_ready(bus, shipped_declaration())
        models: tuple[str, ...] = ()
        if folders:
            backend = onnx_backend(folders, settings.onnx)
            node = await stack.enter_async_context(run_node(bus, backend, settings.node, system))
            watches.append(raise_when_set(node.identity_lost, f"another node has taken the id {node.id}"))
            models = tuple(card.name for card in backend.models)
        for name, further in backends.items():
            said = settings.node.model_copy(update={"id": name})
            node = await stack.enter_async_context(run_node(bus, further, said, system))
            watches.append(raise_when_set(node.identity_lost, f"another node has taken the id {node.id}"))
            models += tuple(card.name for card in further.models)
        await stack.enter_async_context(run_dispatcher(bus, settings.dispatcher, system))
        await stack.enter_async_context(run_webhooks(bus, settings.jobs, system))
        await stack.enter_async_context(
            run_agents(
                bus,
                settings.agents,
                system,
                AgentOptions(
                    jobs=settings.jobs,
                    fallbacks=settings.dispatcher.fallbacks,
                    embedder=embedder,
                    build_tools=partial(build_tools, settings),
                    catalogue=catalogue,
                ),
            )
        )
        gateway = await stack.enter_async_context(
            run_gateway(
                bus,
                settings.gateway,
                system,
                http,
                settings.jobs,
                settings.dispatcher.fallbacks,
                catalogue,
            )
        )
        yield Up(url, gateway.url, models, tuple(watches))


def refuse_to_start(settings: Settings) -> None:
    """Raise what would end `run_up` anyway and can be seen before models are fetched: `DataFolderInUse`, or
    `NatsPortInUse` for the port of NATS."""
    if settings.nats.url:
        return
    require_unused(settings.folder)
    server = settings.nats_server
    if server.port > 0 and not _is_free(server.host, server.port):
        raise NatsPortInUse(
            f"port {server.port} on {server.host} is already in use (nats_server.port): stop what listens "
            f"there, choose another port, or join it with --nats nats://{server.host}:{server.port}"
        )


async def _server(settings: Settings) -> EmbeddedNats:
    """The nats-server to start; one that joins a cluster of three keeps no streams of its own."""
    said = _server_settings(settings)
    if said.join and said.jetstream and await has_enough_replicas(said, settings.nats):
        said = said.model_copy(update={"jetstream": False})
    return EmbeddedNats(said)


def _server_settings(settings: Settings) -> NatsServerSettings:
    """The embedded server's settings: its usual port where that is free, else any free one."""
    said = settings.nats_server.model_copy(update={"data": settings.folder})
    if said.port == 0 and _is_free(said.host, USUAL_NATS_PORT):
        return said.model_copy(update={"port": USUAL_NATS_PORT})
    return said


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
