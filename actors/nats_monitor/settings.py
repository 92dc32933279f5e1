"""Settings of the NATS monitor."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from orchestration.hot import Hot


class NatsMonitorSettings(BaseModel):
    """What is read from the NATS server for metrics, events and traces. Of all processes with a gateway or a
    dispatcher, one reads the queues for the whole cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    enabled: bool = True
    """Whether this process takes part."""
    interval_s: Hot[float] = Field(default=5.0, ge=0.1, le=300)
    """Time between two readings of the queues, streams and consumers."""
    near_limit: Hot[float] = Field(default=0.8, gt=0, le=1)
    """Share of its limit at which a stream or a consumer is recorded as an event `nats.near_limit`."""
    advisory_events_per_minute: Hot[int] = Field(default=60, ge=0)
    """Maximum number of advisories of each kind that this process records as events; further ones are only
    counted."""
