"""The agents as a role of a process."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from actors.agents.agent_host import AgentHost
from actors.agents.settings import AgentsSettings
from actors.bus.bus import Bus
from actors.cluster.registry import NO_FALLBACKS, Fallbacks
from actors.embedding.embedder import Embedder
from actors.jobs.settings import JobsSettings
from actors.runtime.system import ActorSystem
from actors.tools.registry import ToolRegistry
from orchestration.patterns import BUILT_IN, Catalogue

log = logging.getLogger(__name__)


@asynccontextmanager
async def run_agents(
    bus: Bus,
    settings: AgentsSettings,
    system: ActorSystem,
    jobs: JobsSettings | None = None,
    fallbacks: Fallbacks = NO_FALLBACKS,
    embedder: Embedder | None = None,
    build_tools: Callable[[Embedder | None], ToolRegistry] | None = None,
    catalogue: Catalogue = BUILT_IN,
) -> AsyncIterator[AgentHost]:
    """All agents on `bus` until the block ends; then drained, for `drain_timeout_s` at most. `fallbacks` are
    the dispatcher's; `embedder` is the embedding model of this process, closed at the end, with which
    `build_tools` makes the tools of the agents here; `catalogue` has the patterns that they perform.

    Streams and buckets must be declared. Raises `InvalidRequest` for settings of roles that are wrong.
    """
    tools = build_tools(embedder) if build_tools is not None else None
    team = AgentHost(bus, settings, system, jobs, fallbacks, embedder, tools, catalogue)
    try:
        await team.start()
        yield team
    finally:
        if not await team.drain():
            log.warning("agents left with work unfinished after %.1f s", settings.drain_timeout_s)
