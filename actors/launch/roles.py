"""Starts the roles that need more than their own section of the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from actors.bus.bus import Bus
from actors.runtime.system import ActorSystem
from actors.settings import Settings

if TYPE_CHECKING:
    from actors.cluster.registry import Registry
    from actors.embedding.embedder import Embedder
    from actors.gateway.http import HttpServer
    from actors.gateway.process import RunningGateway
    from orchestration.patterns import Catalogue


@asynccontextmanager
async def run_agents_role(
    bus: Bus,
    settings: Settings,
    system: ActorSystem,
    catalogue: Catalogue,
    embedder: Embedder | None,
    registry: Registry | None = None,
) -> AsyncIterator[None]:
    """Run the coordinator, the specialists and the webhooks of jobs until the block ends. `registry` is
    shared with other roles of the process."""
    from actors.agents.process import run_agents
    from actors.agents.services import AgentOptions
    from actors.jobs.process import run_webhooks
    from actors.launch.build_tools import build_tools

    options = AgentOptions(
        jobs=settings.jobs,
        placement=settings.dispatcher,
        embedder=embedder,
        build_tools=partial(build_tools, settings),
        catalogue=catalogue,
        registry=registry,
    )
    async with run_webhooks(bus, settings.jobs, system), run_agents(bus, settings.agents, system, options):
        yield


def run_gateway_role(
    bus: Bus,
    settings: Settings,
    system: ActorSystem,
    catalogue: Catalogue,
    http: HttpServer | None = None,
    registry: Registry | None = None,
) -> AbstractAsyncContextManager[RunningGateway]:
    """Run a gateway until the block ends. `http` is a server that has bound its port already; `registry` is
    shared with other roles of the process."""
    from actors.admin.process import run_admin
    from actors.gateway.process import run_gateway

    return run_gateway(
        bus,
        settings.gateway,
        system,
        http,
        jobs=settings.jobs,
        placement=settings.dispatcher,
        catalogue=catalogue,
        registry=registry,
        extension=partial(run_admin, system=system),
    )
