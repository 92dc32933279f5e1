"""How one embedded nats-server is to run."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, field_validator

CLUSTER_PORT = 6222
"""The usual port for the routes between nats-servers."""


class NatsServerSettings(BaseModel):
    """Checked once, at the start. `port` 0 takes a free one and keeps it over restarts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Path()
    """The data folder of Orchestra, as `orchestra up` knows it; the server's files go to `<data>/nats`."""
    host: str = "127.0.0.1"
    """Address that the server listens on."""
    port: int = Field(default=0, ge=0, le=65_535)
    """Port for clients; 0 takes a free one."""
    monitor_port: int = Field(default=0, ge=0, le=65_535)
    """Of the server's own monitoring pages; 0 leaves them off."""
    max_store_bytes: int = Field(default=4 * 2**30, ge=2**20)
    """The room that JetStream may use on disk; the streams of streams.yaml must fit into it."""
    sync: str = Field(default="2m", pattern=r"^(always|[0-9]+(ms|s|m|h))$")
    """How often JetStream forces writes onto the disk; "always" survives power loss."""
    name: str = Field(default="orchestra", pattern=r"^[A-Za-z0-9_-]+$")
    """In a cluster the default stands for the host's name with four digits, kept in the data folder."""
    join: tuple[str, ...] = ()
    """Other machines of the cluster, `HOST` or `HOST:PORT` of their `cluster_port`; none means alone."""
    cluster_name: str = Field(default="orchestra", pattern=r"^[A-Za-z0-9_-]+$")
    """Name of the cluster of NATS servers; the same on every machine."""
    cluster_port: int = Field(default=CLUSTER_PORT, ge=1, le=65_535)
    """Where other servers of the cluster connect; only open when `join` names any."""
    jetstream: bool = True
    """Whether this server keeps streams; a plain peer of a cluster does not."""
    gc_percent: int = Field(default=40, ge=5, le=400)
    """By how many percent of what is in use the server's memory may grow before it collects garbage (Go's
    GOGC). What is kept of 10,000 jobs takes 4 MB, beside 30 MB of the streams' buffers; with Go's own 100 the
    server held up to 102, 118 and 130 MB during the first, second and third of them, with 40 up to 84, 100
    and 99 (tests/bench/jobs.py)."""
    memory_limit_bytes: int = Field(default=128 * 2**20, ge=64 * 2**20)
    """Beyond it the server collects garbage as often as it must (Go's GOMEMLIMIT); it refuses nothing."""
    start_timeout_s: float = Field(default=30.0, gt=0)
    """A store of gigabytes is read through at the start."""
    stop_timeout_s: float = Field(default=10.0, gt=0)
    """From SIGTERM to SIGKILL."""
    first_backoff_s: float = Field(default=0.05, gt=0)
    """Before the first restart; doubles with every further death within the window."""
    max_backoff_s: float = Field(default=5.0, gt=0)
    """Longest pause before the server is started again after it died."""
    max_restarts: int = Field(default=5, ge=0)
    """More deaths than this within `restart_window_s` end it."""
    restart_window_s: float = Field(default=60.0, gt=0)
    """Window in which restarts are counted."""

    @field_validator("join")
    @classmethod
    def _addresses(cls, join: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(address(each) for each in join)


def address(text: str) -> str:
    """`HOST[:PORT]` with its port, the usual one unless said. Raises `ValueError`."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or text.endswith("]"):  # a bare name, or a bare [IPv6]
        host, port = text.strip(), str(CLUSTER_PORT)
    plain = host.startswith("[") or ":" not in host
    if not host or not plain or "/" in host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ValueError(f"{text!r} is not HOST or HOST:PORT (an IPv6 address in brackets)")
    return f"{host}:{port}"
