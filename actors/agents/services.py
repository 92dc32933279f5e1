"""What the agents of one process share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from actors.agents.settings import AgentsSettings
from actors.bus.bus import Bus
from actors.cluster.registry import Registry
from actors.embedding.embedder import Embedder
from actors.jobs.settings import JobsSettings
from actors.learning.tuner import Tuner
from actors.placement.settings import DEFAULT_PLACEMENT, PlacementSettings
from actors.streams.client import StreamClient
from actors.tools.registry import ToolRegistry
from orchestration.patterns import BUILT_IN, Catalogue
from orchestration.roles import Role


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentOptions:
    """What a process of agents may be given. `placement` is the dispatcher's; `embedder` is the embedding
    model of this process, with which `build_tools` makes the tools of its agents. `registry` is shared
    with other roles of the process."""

    jobs: JobsSettings = field(default_factory=JobsSettings)
    placement: PlacementSettings = DEFAULT_PLACEMENT
    embedder: Embedder | None = None
    build_tools: Callable[[Embedder | None], ToolRegistry] | None = None
    catalogue: Catalogue = field(default_factory=lambda: BUILT_IN)
    registry: Registry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentServices:
    """`embedder` is the embedding model of this process, and `tools` are those that its agents have.
    `catalogue` has the patterns of runs."""

    bus: Bus
    streams: StreamClient
    registry: Registry
    roles: dict[str, Role]
    descriptions: dict[str, str]
    """What each agent is good for."""
    settings: AgentsSettings
    tuner: Tuner
    tools: ToolRegistry
    embedder: Embedder | None = None
    catalogue: Catalogue = field(default_factory=lambda: BUILT_IN)
