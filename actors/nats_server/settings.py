"""How one embedded nats-server is to run."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class NatsServerSettings(BaseModel):
    """Checked once, at the start. `port` 0 takes a free one and keeps it over restarts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Path()
    """The data folder of Orchestra, as `orchestra up` knows it; the server's files go to `<data>/nats`."""
    host: str = "127.0.0.1"
    port: int = Field(default=0, ge=0, le=65_535)
    monitor_port: int = Field(default=0, ge=0, le=65_535)
    """Of the server's own monitoring pages; 0 leaves them off."""
    max_store_bytes: int = Field(default=4 * 2**30, ge=2**20)
    """The room that JetStream may use on disk; the streams of streams.yaml must fit into it."""
    sync: str = Field(default="2m", pattern=r"^(always|[0-9]+(ms|s|m|h))$")
    """How often JetStream forces writes onto the disk; "always" survives power loss."""
    name: str = Field(default="orchestra", pattern=r"^[A-Za-z0-9_-]+$")
    start_timeout_s: float = Field(default=30.0, gt=0)
    """A store of gigabytes is read through at the start."""
    stop_timeout_s: float = Field(default=10.0, gt=0)
    """From SIGTERM to SIGKILL."""
    first_backoff_s: float = Field(default=0.05, gt=0)
    """Before the first restart; doubles with every further death within the window."""
    max_backoff_s: float = Field(default=5.0, gt=0)
    max_restarts: int = Field(default=5, ge=0)
    """More deaths than this within `restart_window_s` end it."""
    restart_window_s: float = Field(default=60.0, gt=0)
