"""How a dispatcher waits and retries."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from orchestration.placement import BreakerSettings, FirstOutputSettings, HedgeSettings


class WarmingSettings(BaseModel):
    """When models are loaded before they are asked for, on nodes that do not hold all they offer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    horizon_s: float = Field(default=600, gt=0, le=86_400)
    """How far ahead is looked."""
    floor: float = Field(default=0.2, ge=0)
    """Generations that must be expected within the horizon for a model to be loaded ahead."""
    interval_s: float = Field(default=10, gt=0)
    """Between two decisions; a step of a run has one made at once."""
    half_life_s: float = Field(default=900, gt=0)
    """After which an arrival counts half in the moving average."""
    save_s: float = Field(default=30, gt=0)
    """How often what was learnt is written down."""


class DispatcherSettings(BaseModel):
    """Limits and times of one dispatcher."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    keep_alive_s: float = Field(default=2, gt=0)
    """How often a message at work is kept from redelivery: a third of the consumers' ack_wait."""
    attempts: int = Field(default=3, ge=1, le=10)
    """Nodes that may fail or die under one generation before its caller is told."""
    fallbacks: dict[str, tuple[str, ...]] = {}
    """For a model, those that answer when its nodes all fail or are gone, in this order; the answer names
    the one that did."""
    deliveries: int = Field(default=5, ge=1, le=19)
    """Dispatchers that may die with one generation before it goes to the dead letters. Not fewer: a rolling
    restart of three machines may hit the same one three times."""
    retry_share: float = Field(default=0.2, ge=0)
    """Of the generations, how many may be tried again after a node's error. What dies with its node moves
    in any case."""
    retry_reserve: float = Field(default=100, ge=0)
    """Tries saved up at most."""
    ping_interval_s: float = Field(default=0.25, gt=0)
    """How often nodes at work are asked whether they live."""
    ping_misses: int = Field(default=10, ge=2)
    """Pings without an answer after which a node counts as frozen, and what it has moves elsewhere."""
    takeover_quiet_s: float = Field(default=3.0, gt=0)
    """What a dead dispatcher had placed is left to its node while the node wrote within that time."""
    busy_pause_s: float = Field(default=0.1, gt=0)
    """Before a generation that every node refused as busy is offered again."""
    pulled_ahead: int = Field(default=16, ge=0)
    """Generations of each model and priority that may wait here, so that a slot that becomes free is filled
    at once and by the most urgent; at most half of the slots."""
    breaker: BreakerSettings = BreakerSettings()
    """When a node that keeps failing with a model is left alone."""
    hedging: HedgeSettings = HedgeSettings()
    """When an interactive generation that is late goes to a second node as well."""
    first_output: FirstOutputSettings = FirstOutputSettings()
    """When a node without any output of a generation is taken for hung, and another one gets it."""
    group_hold_s: float = Field(default=5.0, ge=0, le=3600)
    """Where a node's memory does not hold all the models that are asked for: how long the generations of one
    keep it while those of another wait, or as long as loading that takes if that is longer; batch work that
    interactive work waits for an eighth of it. 0 changes models in the order of arrival."""
    warming: WarmingSettings = WarmingSettings()
    starving_s: float = Field(default=2.0, gt=0)
    """What waited here for so long makes all dispatchers keep to their share of the slots."""
    remembered_cancels: int = Field(default=10_000, ge=1)
    max_models: int = Field(default=500, ge=1)
    """Models whose queues are served; three consumers each."""
    drain_timeout_s: float = Field(default=30, gt=0)
