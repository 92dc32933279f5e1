"""`orchestra up`: one of each role in one process, and a NATS server."""

from __future__ import annotations

import logging
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING

from actors.backends.base import Backend
from actors.bus.declarations import shipped_declaration
from actors.bus.provision import apply_when_ready
from actors.bus.storage import report_full_disk
from actors.cluster.formation import has_enough_replicas, join_cluster
from actors.cluster.registry import Registry
from actors.config.hot_settings import HotSettings
from actors.config.settings_follower import followed
from actors.embedding.embedder import Embedder
from actors.gateway.http import HttpServer
from actors.launch.observability import observed
from actors.launch.process import connected, raise_when_set
from actors.launch.roles import run_agents_role, run_dispatcher_role, run_gateway_role
from actors.nats_server import EmbeddedNats, NatsPortInUse, NatsServerSettings
from actors.nats_server.lock import require_unused
from actors.node.backend_factory import local_backend, openai_backend
from actors.node.process import run_node
from actors.runtime.system import ActorSystem
from actors.settings import Settings
from actors.telemetry.identity import ProcessIdentity

if TYPE_CHECKING:
    from collections.abc import Awaitable

log = logging.getLogger(__name__)

DEFAULT_NATS_PORT = 4222
NO_BACKENDS: Mapping[str, Backend] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Up:
    """A running `orchestra up`: its addresses, its models, and the conditions that end it."""

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
    origins: Mapping[str, str] | None = None,
) -> AsyncIterator[Up]:
    """Run all roles until the block ends; then drain gateway, agents, dispatcher and node, in this order.

    `folders` are the models to serve on a node of this machine; a second node serves those of
    `openai.base_url`. Each is there only if set. `embedder` is that of the agents. `http` is a server that
    has bound its port already. `backends` are those of further nodes, by the nodes' ids. `origins` are the
    sources of settings: what the environment or the command line sets stays so. Raises
    `OrchestraError` for a busy port, a data folder that is in use or not writable, a corrupt model, or an
    upstream that cannot be reached.
    """
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
        watches.append(raise_when_set(system.actor_failed, "an actor crashed too often; see the log above"))
        bus = await stack.enter_async_context(connected(settings, url, "orchestra-up"))
        if server is not None:
            await stack.enter_async_context(report_full_disk(bus, server.disk_problem))
        if server is not None and server.settings.join:
            watches.append(await stack.enter_async_context(join_cluster(bus, server)))
        else:
            await apply_when_ready(bus, shipped_declaration())
        identity = ProcessIdentity.of_this_process("up")
        hot = HotSettings(settings, origins)
        await stack.enter_async_context(followed(bus, hot, identity))
        settings = hot.settings
        await stack.enter_async_context(observed(bus, hot, identity))
        models: tuple[str, ...] = ()
        for node_id, backend in {**_own_backends(settings, folders), **backends}.items():
            node_settings = settings.node.model_copy(update={"id": node_id})
            node = await stack.enter_async_context(
                run_node(bus, backend, node_settings, system, settings.models_folder)
            )
            watches.append(raise_when_set(node.identity_lost, f"another node has taken the id {node.id}"))
            models += tuple(card.name for card in backend.models)
        registry = Registry(bus, settings.dispatcher.fallbacks)
        await stack.enter_async_context(run_dispatcher_role(bus, hot, system, registry))
        await stack.enter_async_context(run_agents_role(bus, hot, system, catalogue, embedder, registry))
        gateway = await stack.enter_async_context(
            run_gateway_role(bus, hot, system, catalogue, http, registry)
        )
        yield Up(url, gateway.url, models, tuple(watches))


def _own_backends(settings: Settings, folders: Sequence[Path]) -> dict[str, Backend]:
    """The backends that the settings name, by the ids of their nodes."""
    backends: dict[str, Backend] = {}
    if folders:
        local = local_backend(settings.local_backend, folders, settings.onnx, settings.openvino)
        backends[settings.node.named(local.name)] = local
    if settings.openai.get("base_url"):
        node_id = (
            f"{settings.node.id}-openai" if settings.node.id and folders else settings.node.named("openai")
        )
        backends[node_id] = openai_backend((), settings.openai)
    return backends


def refuse_to_start(settings: Settings) -> None:
    """Check, before models are downloaded, what would make `run_up` fail. Raises `DataFolderInUse`, or
    `NatsPortInUse` for the port of NATS."""
    if settings.nats.url:
        return
    require_unused(settings.folder)
    server = settings.nats_server
    if server.port > 0 and not _is_free(server.host, server.port):
        raise NatsPortInUse(
            f"port {server.port} on {server.host} is already in use (nats_server.port): "
            f"stop the process there, choose another port, or join it with --nats nats://{server.host}:{server.port}"
        )


async def _server(settings: Settings) -> EmbeddedNats:
    """The NATS server to start. One that joins a cluster of three has no JetStream."""
    server = _server_settings(settings)
    if server.join and server.jetstream and await has_enough_replicas(server, settings.nats):
        server = server.model_copy(update={"jetstream": False})
    return EmbeddedNats(server)


def _server_settings(settings: Settings) -> NatsServerSettings:
    """The settings of the embedded server: with port 4222 if that is free, else any free port."""
    server = settings.nats_server.model_copy(update={"data": settings.folder})
    if server.port == 0 and _is_free(server.host, DEFAULT_NATS_PORT):
        return server.model_copy(update={"port": DEFAULT_NATS_PORT})
    return server


def _is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True
