"""Settings of a gateway: where it listens, and its limits."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from actors.gateway.admission_settings import CacheSettings, CallerLimits, CallersSettings, LimitsSettings
from orchestration.hot import Hot
from orchestration.validation import split_address


class GatewaySettings(BaseModel):
    """The HTTP and NATS interface of a gateway."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    http: str = "127.0.0.1:8080"
    """The address to listen on: `host:port` or `[v6]:port`; port 0 takes a free port. It is plain HTTP:
    beyond loopback put it behind a proxy with TLS, and set `callers`."""
    max_body_bytes: int = Field(default=4 * 2**20, ge=1024)
    """Maximum size of a request body; a larger one is refused with 413. Keep it below the NATS server's
    `max_payload`."""
    max_bodies_bytes: Hot[int] = Field(default=256 * 2**20, ge=1024)
    """Maximum bytes of the bodies of all HTTP requests in flight, without the first 16 KB of each; a request
    beyond it is refused with 503."""
    max_in_flight: Hot[int] = Field(default=1024, ge=1)
    """Maximum requests in flight at this gateway, over HTTP and NATS; one more is refused with 429."""
    max_connections: Hot[int] = Field(default=4096, ge=1)
    """Maximum open HTTP connections. One more closes the longest idle one; if none is idle, the new one is
    refused with 503."""
    max_connections_per_address: Hot[int] = Field(default=1024, ge=1)
    """Maximum open HTTP connections from one IPv4 address or one /64 network of IPv6; one more is refused
    with 503. Behind a proxy all clients have the proxy's address."""
    max_request_line_bytes: int = Field(default=16 * 1024, ge=256)
    """Maximum size of a path with its query; a longer one is refused with 414."""
    max_header_bytes: int = Field(default=64 * 1024, ge=1024)
    """Maximum size of all request headers together; longer ones are refused with 431."""
    max_headers: int = Field(default=100, ge=8)
    """Maximum number of request headers; more are refused with 431."""
    max_pipelined: int = Field(default=8, ge=0)
    """Maximum pipelined requests that wait on a connection behind the current one. Beyond it, at most 4 KB
    are read until one is answered."""
    head_timeout_s: Hot[float] = Field(default=10, gt=0)
    """How long a client may take to send the headers of a request, from its first byte; then 408."""
    send_timeout_s: Hot[float] = Field(default=10, gt=0)
    """How long a client may leave `stream_buffer_bytes` of a stream unread; then the stream ends. After three
    times as long without a byte read, the connection is closed."""
    stream_buffer_bytes: int = Field(default=256 * 1024, ge=16 * 1024)
    """Maximum bytes of a response buffered in this process for a client that reads slowly; the operating
    system buffers about as many again."""
    max_run_event_streams: Hot[int] = Field(default=256, ge=1)
    """Maximum open streams of run events; one more is refused with 429."""
    request_timeout_s: Hot[float] = Field(default=600, gt=0)
    """Maximum duration of a request. The header `X-Request-Timeout` (seconds) can shorten it."""
    wait_for_node_s: Hot[float] = Field(default=3600, ge=0)
    """A request for a model that no node serves now waits until its deadline, if a node served the model in
    the last `wait_for_node_s` seconds. 0 refuses it at once."""
    body_timeout_s: Hot[float] = Field(default=30, gt=0)
    """How long a client may take to send its body; then 408."""
    keep_alive_s: Hot[float] = Field(default=15, gt=0)
    """A comment is sent on a stream that was silent for this long, so that proxies keep it open."""
    idle_connection_s: int = Field(default=65, ge=1)
    """A connection without a request is closed after this time."""
    drain_s: float = Field(default=20, ge=0)
    """How long requests in flight may continue once the gateway shuts down; then they are cancelled."""
    slow_request_s: Hot[float] = Field(default=30, gt=0)
    """A request that takes this long or longer is logged as slow."""
    limits: Hot[LimitsSettings] = LimitsSettings()
    cache: Hot[CacheSettings] = CacheSettings()
    callers: Hot[CallersSettings] = {}
    """The callers that may use HTTP, by name. Empty: no key is needed, and every client is the caller
    `anonymous`."""

    def limits_of(self, caller: str) -> CallerLimits:
        """Return the limits of `caller`: its own, or those for each caller where it has none."""
        each = self.limits.per_caller
        own = self.callers.get(caller)
        return each if own is None else own.over(each)

    @field_validator("http")
    @classmethod
    def _has_host_and_port(cls, value: str) -> str:
        split_address(value)
        return value
