"""How one gateway listens and what it takes on."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from actors.gateway.admission_settings import CacheSettings, CallerLimits, CallersSettings, LimitsSettings


class GatewaySettings(BaseModel):
    """Checked once, at the start."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    http: str = "127.0.0.1:8080"
    """`host:port`, `[v6]:port`; port 0 takes a free one. No password guards it: keep it on loopback, or
    behind a proxy that asks for one."""
    max_body_bytes: int = Field(default=4 * 2**20, ge=1024)
    """A larger request body is refused with 413. Below the NATS server's `max_payload`."""
    max_bodies_bytes: int = Field(default=256 * 2**20, ge=1024)
    """Of all HTTP requests at work together, beyond the first 16 KB of each; one more is answered 503."""
    max_in_flight: int = Field(default=1024, ge=1)
    """Requests at work at once, over all faces of this gateway; one more is refused with 429."""
    max_connections: int = Field(default=4096, ge=1)
    """Open HTTP connections. One more closes the one that is idle for longest; where none is, it is answered
    503."""
    max_connections_per_address: int = Field(default=1024, ge=1)
    """Open HTTP connections from one IPv4 address or one /64 of IPv6; one more is answered 503. Behind a
    proxy all clients have the proxy's address."""
    max_request_line_bytes: int = Field(default=16 * 1024, ge=256)
    """A longer path with its query is refused with 414."""
    max_header_bytes: int = Field(default=64 * 1024, ge=1024)
    """Longer request headers, together or one of them, are refused with 431."""
    max_headers: int = Field(default=100, ge=8)
    """More request headers are refused with 431."""
    max_pipelined: int = Field(default=8, ge=0)
    """Requests that may wait on a connection behind the one that is answered; no more is read meanwhile, but
    for 4 KB."""
    head_timeout_s: float = Field(default=10, gt=0)
    """How long a client may take to send the head of a request, from its first byte; then 408."""
    send_timeout_s: float = Field(default=10, gt=0)
    """A stream ends when the client leaves `stream_buffer_bytes` unread for so long; a connection of which no
    byte is taken for three times as long is cut."""
    stream_buffer_bytes: int = Field(default=256 * 1024, ge=16 * 1024)
    """Bytes of an answer that may wait in this process for a client that reads slowly; the operating system
    holds about as many again."""
    max_run_event_streams: int = Field(default=256, ge=1)
    """Streams of what happens in a run, open at once; one more is refused with 429."""
    request_timeout_s: float = Field(default=600, gt=0)
    """The longest a request may take. `X-Request-Timeout` (seconds) asks for less."""
    wait_for_node_s: float = Field(default=3600, ge=0)
    """A model that was served within so long is accepted though no node of it is there: the request waits for
    one until its deadline. 0 refuses at once."""
    body_timeout_s: float = Field(default=30, gt=0)
    """How long a client may take to send its body."""
    keep_alive_s: float = Field(default=15, gt=0)
    """A stream that is silent for this long gets a comment, so that no proxy gives it up."""
    idle_connection_s: int = Field(default=65, ge=1)
    """A connection without a request is closed after so long."""
    drain_s: float = Field(default=20, ge=0)
    """How long requests in flight may go on after the gateway was told to stop."""
    limits: LimitsSettings = LimitsSettings()
    cache: CacheSettings = CacheSettings()
    callers: CallersSettings = {}
    """Who may ask over HTTP, by name. None: everybody, all as the caller `anonymous`."""

    def limits_of(self, caller: str) -> CallerLimits:
        """Its own, and those for each caller where it has none."""
        each = self.limits.per_caller
        own = self.callers.get(caller)
        return each if own is None else own.over(each)

    @field_validator("http")
    @classmethod
    def _has_host_and_port(cls, value: str) -> str:
        split_address(value)
        return value


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[v6]:port`. Raises ValueError saying what is wrong."""
    host, colon, port = address.rpartition(":")
    if not colon or not host:
        raise ValueError(f"{address!r} is not host:port")
    if not (port.isascii() and port.isdigit() and int(port) <= 65_535):
        raise ValueError(f"{port!r} in {address!r} is not a port (0 to 65535)")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise ValueError(f"an IPv6 address needs brackets: [{host}]:{port}")
    return host, int(port)
