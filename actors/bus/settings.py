"""How to reach NATS."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class BusSettings(BaseModel):
    """The connection to NATS."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = ""
    """Address `nats://HOST:PORT`, or several with commas between them. Empty: `orchestra up` starts a server,
    and other commands use the one of the running `orchestra up`."""
    connect_timeout_s: float = Field(default=5, gt=0)
    """Timeout of one attempt to connect to a server."""
    reconnect_wait_s: float = Field(default=0.25, gt=0)
    """Pause between two attempts to reconnect."""
    ping_interval_s: float = Field(default=3, gt=0)
    """Time between two pings to the server. After three without an answer the client reconnects."""
    request_timeout_s: float = Field(default=5, gt=0)
    """Default timeout of a request within the cluster."""
    pending_messages: int = Field(default=65_536, ge=1)
    """Maximum messages that wait for one subscription; further ones are dropped and counted."""
    pending_bytes: int = Field(default=64 * 2**20, ge=1)
    """Maximum bytes of messages that wait for one subscription; further ones are dropped and counted."""
    local_delivery: bool = True
    """Whether messages within this process skip the server. Set it to false to see all messages on the
    server."""
