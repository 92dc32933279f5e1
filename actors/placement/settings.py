"""How generations are placed on nodes, and moved when nodes fail."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from orchestration.hot import Hot
from orchestration.placement import BreakerSettings, FirstOutputSettings, HedgeSettings


class PlacementSettings(BaseModel):
    """The placement of generations on nodes, by a dispatcher or by a gateway or an agent that calls a node
    directly."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    direct: Hot[bool] = True
    """Whether gateways and agents send a generation straight to a node with a free slot, while no other
    generation of its model waits. Otherwise every generation goes through its queue."""
    attempts: Hot[int] = Field(default=3, ge=1, le=10)
    """Maximum nodes that may fail with a generation; then it ends with the error."""
    fallbacks: Hot[dict[str, tuple[str, ...]]] = {}
    """Other models by model: `{big = ["small"]}`. When no node can answer for a model, its fallbacks are
    tried in this order; the answer names the one that was used."""
    retry_share: Hot[float] = Field(default=0.2, ge=0)
    """Retries after an error of a node, as a share of all generations. Generations of a dead node move
    without this limit."""
    retry_reserve: Hot[float] = Field(default=100, ge=0)
    """Maximum unused retries that are saved for later."""
    ping_interval_s: float = Field(default=0.25, gt=0)
    """Time between two pings to each node with generations in progress."""
    ping_misses: int = Field(default=10, ge=2)
    """Unanswered pings in a row after which a node counts as frozen: its generations move to other nodes."""
    busy_pause_s: Hot[float] = Field(default=0.1, gt=0)
    """Pause before a generation is placed again that lost its node while no other could take it."""
    breaker: Hot[BreakerSettings] = BreakerSettings()
    """Stops work to a model on a node that fails repeatedly."""
    hedging: Hot[HedgeSettings] = HedgeSettings()
    """Sends a late interactive generation to a second node as well."""
    first_output: Hot[FirstOutputSettings] = FirstOutputSettings()
    """Moves a generation from a node that gives no output in time."""
    group_hold_s: Hot[float] = Field(default=5.0, ge=0, le=3600)
    """For nodes whose memory does not hold all requested models: how long a model keeps the memory while
    generations of another model wait, at least the load time of that model. Batch work keeps it an eighth as
    long while interactive work waits. 0: models change in the order of arrival."""


DEFAULT_PLACEMENT = PlacementSettings()
