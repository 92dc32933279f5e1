"""The agents as a process, or as a part of one."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from actors.agents.agent_host import AgentHost
from actors.agents.services import AgentOptions
from actors.agents.settings import AgentsSettings
from actors.bus.bus import Bus
from actors.runtime.system import ActorSystem

log = logging.getLogger(__name__)


@asynccontextmanager
async def run_agents(
    bus: Bus, settings: AgentsSettings, system: ActorSystem, options: AgentOptions | None = None
) -> AsyncIterator[AgentHost]:
    """All agents on `bus` until the block ends; then drained, for `drain_timeout_s` at most. The embedder and
    the tools are closed at the end.

    Streams and buckets must be declared. Raises `InvalidRequest` for settings of roles that are wrong.
    """
    host = AgentHost(bus, settings, system, options or AgentOptions())
    try:
        await host.start()
        yield host
    finally:
        if not await host.drain():
            log.warning("agents left with work unfinished after %.1f s", settings.drain_timeout_s)
