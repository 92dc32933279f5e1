"""How to reach NATS."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class BusSettings(BaseModel):
    """How to reach NATS."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = ""
    """`nats://host:port`, several by commas; empty means: start an embedded server (`orchestra up`)."""
    connect_timeout_s: float = Field(default=5, gt=0)
    """How long one attempt to connect to a server may take."""
    reconnect_wait_s: float = Field(default=0.25, gt=0)
    """Pause between two attempts to reconnect."""
    ping_interval_s: float = Field(default=3, gt=0)
    """A server that answers none of three pings in a row counts as lost; the client reconnects."""
    request_timeout_s: float = Field(default=5, gt=0)
    """How long a request within the cluster waits for its reply, unless its caller says otherwise."""
    pending_messages: int = Field(default=65_536, ge=1)
    """Maximum number of messages that wait for one coroutine handler."""
    pending_bytes: int = Field(default=64 * 2**20, ge=1)
    """Bytes of such messages; at either limit further messages to the handler are dropped and counted."""
    local_delivery: bool = True
    """Deliver messages within this process without the server. Switch it off to see all messages there."""
