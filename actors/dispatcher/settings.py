"""How a dispatcher waits and retries."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from actors.placement.settings import PlacementSettings
from orchestration.hot import Hot


class WarmingSettings(BaseModel):
    """The loading of models in advance, on nodes whose memory does not hold all models that they offer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    """Whether dispatchers load models in advance."""
    horizon_s: Hot[float] = Field(default=600, gt=0, le=86_400)
    """Time ahead for which generations are forecast."""
    floor: Hot[float] = Field(default=0.2, ge=0)
    """Minimum expected generations within `horizon_s` for which a model is loaded in advance."""
    interval_s: Hot[float] = Field(default=10, gt=0)
    """Time between two decisions. A new step of a run causes one at once."""
    half_life_s: float = Field(default=900, gt=0)
    """Time after which an arrival has half the weight in the moving average."""
    save_s: float = Field(default=30, gt=0)
    """Time between two writes of the forecast to the bucket `forecast`."""


class DispatcherSettings(PlacementSettings):
    """The dispatcher, which sends each generation from its queue to a node. Gateways and agents use the same
    settings of placement for the generations that they send to nodes directly."""

    keep_alive_s: float = Field(default=2, gt=0)
    """Time between two renewals of a message in progress, so that the queue does not deliver it again. Keep
    it near a third of the consumers' `ack_wait`."""
    deliveries: Hot[int] = Field(default=5, ge=1, le=19)
    """Maximum deliveries of a generation, one more after each dispatcher that died with it; then it goes to
    the dead letters. A rolling restart of three machines can take three."""
    takeover_quiet_s: Hot[float] = Field(default=3.0, gt=0)
    """A generation of a dead dispatcher stays on its node while the node wrote within this time."""
    pulled_ahead: Hot[int] = Field(default=16, ge=0)
    """Maximum generations of each model and priority that wait in this process, so that a free slot is filled
    at once. At most half of the slots."""
    warming: WarmingSettings = WarmingSettings()
    starving_s: Hot[float] = Field(default=2.0, gt=0)
    """When a generation waited here for this long, all dispatchers keep to their share of the slots."""
    remembered_cancels: int = Field(default=10_000, ge=1)
    """Maximum cancelled generations that are remembered while they may still be in the queue; the oldest are
    forgotten."""
    max_models: int = Field(default=500, ge=1)
    """Maximum models whose queues are served; each has three consumers from its first queued generation
    until a day after its last."""
    drain_timeout_s: float = Field(default=30, gt=0)
    """Maximum time for generations in progress to end at shutdown; then other dispatchers take them over."""
