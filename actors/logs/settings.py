"""Settings of the central log."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from orchestration.hot import Hot
from orchestration.validation import TextForm


class MongoSettings(BaseModel):
    """Where the log shipper writes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = ""
    """Address `mongodb://USER:PASSWORD@HOST:PORT/`. Empty: no events are shipped. `orchestra up` runs a
    shipper when it is set."""
    database: Annotated[str, TextForm.name("_-", 63)] = "orchestra"
    """Name of the database; the shipper creates its collections and indexes."""
    driver: Literal["motor", "pymongo"] = "motor"
    """The client library. motor is at its end of life; pymongo's asynchronous client replaces it."""
    events_days: float = Field(default=30, gt=0)
    """Time after which MongoDB deletes an event, in days. A change applies to a present collection."""
    rollups_days: float = Field(default=400, gt=0)
    """Time after which MongoDB deletes the roll-up of a minute, in days."""
    batch: int = Field(default=500, ge=1, le=10_000)
    """Maximum events in one write."""
    linger_s: float = Field(default=0.2, ge=0)
    """Time for which a write waits for further events."""
    timeout_s: float = Field(default=10, gt=0)
    """Timeout of one write, and of finding a server."""
    max_backoff_s: float = Field(default=15, gt=0)
    """Maximum pause between two attempts to write the same events."""
    attempts: int = Field(default=4, ge=1)
    """Attempts to write a document that MongoDB refuses while it takes others; then it is a dead letter."""
    rollup_s: float = Field(default=10, gt=0)
    """Time between two computations of the roll-ups of minutes with new events."""


class LogsSettings(BaseModel):
    """The central log: what this process publishes, and where events are shipped to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    publish: Hot[bool] = True
    """Whether events go to the stream `LOGS`. Without it `orchestra logs` shows nothing of this process."""
    content: Hot[bool] = False
    """Whether events may contain texts of models, upstreams and exceptions, which may quote prompts."""
    record_level: Hot[Literal["WARNING", "ERROR", "OFF"]] = "WARNING"
    """Minimum level of the records of Python's logging that become events."""
    records_per_minute: Hot[int] = Field(default=100, ge=1)
    """Maximum records of one logger and level that become events in a minute; one event counts the others."""
    buffer_events: Hot[int] = Field(default=20_000, ge=10)
    """Maximum events that wait for NATS in this process; further ones are counted and told as `log.gap`."""
    buffer_mib: Hot[float] = Field(default=16, gt=0)
    """Maximum size of the events that wait for NATS in this process; further ones are counted likewise."""
    flush_s: Hot[float] = Field(default=0.1, gt=0)
    """Time for which an event waits for others before it is published."""
    max_event_kib: Hot[int] = Field(default=64, ge=4, le=512)
    """Maximum size of one event; longer texts are cut, which the event says."""
    mongodb: MongoSettings = MongoSettings()
