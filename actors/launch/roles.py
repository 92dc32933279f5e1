"""Starts the roles that need more than their own section of the settings."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

from actors.bus.bus import Bus
from actors.config.hot_settings import HotSettings
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
    hot: HotSettings[Settings],
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

    settings = hot.settings
    options = AgentOptions(
        jobs=settings.jobs,
        placement=settings.dispatcher,
        embedder=embedder,
        build_tools=partial(build_tools, settings),
        catalogue=catalogue,
        registry=registry,
    )
    async with run_webhooks(bus, settings.jobs, system) as webhooks:
        hot.on_change("jobs", lambda now: webhooks.update_settings(now.jobs), since=settings)
        async with run_agents(bus, settings.agents, system, options) as agents:
            hot.on_change("agents", lambda now: agents.update_settings(now.agents), since=settings)
            hot.on_change("jobs", lambda now: agents.update_jobs(now.jobs), since=settings)
            hot.on_change("dispatcher", lambda now: agents.update_placement(now.dispatcher), since=settings)
            yield


@asynccontextmanager
async def run_gateway_role(
    bus: Bus,
    hot: HotSettings[Settings],
    system: ActorSystem,
    catalogue: Catalogue,
    http: HttpServer | None = None,
    registry: Registry | None = None,
) -> AsyncIterator[RunningGateway]:
    """Run a gateway until the block ends. `http` is a server that has bound its port already; `registry` is
    shared with other roles of the process."""
    from actors.admin.process import run_admin
    from actors.gateway.process import run_gateway

    settings = hot.settings
    async with run_gateway(
        bus,
        settings.gateway,
        system,
        http,
        jobs=settings.jobs,
        placement=settings.dispatcher,
        catalogue=catalogue,
        registry=registry,
        extension=partial(run_admin, system=system, hot=hot),
    ) as running:
        hot.on_change("gateway", lambda now: running.update_settings(now.gateway), since=settings)
        hot.on_change("jobs", lambda now: running.jobs.update_settings(now.jobs), since=settings)
        hot.on_change(
            "dispatcher", lambda now: running.direct.update_settings(now.dispatcher), since=settings
        )
        yield running


@asynccontextmanager
async def run_dispatcher_role(
    bus: Bus, hot: HotSettings[Settings], system: ActorSystem, registry: Registry | None = None
) -> AsyncIterator[None]:
    """Run a dispatcher until the block ends. `registry` is shared with other roles of the process."""
    from actors.dispatcher.process import start_dispatcher

    settings = hot.settings
    async with start_dispatcher(bus, settings.dispatcher, system, registry) as running:
        hot.on_change("dispatcher", lambda now: running.update_settings(now.dispatcher), since=settings)
        yield
