"""Settings of one embedded nats-server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from orchestration.validation import TextForm

ServerName = Annotated[str, TextForm(r"^[A-Za-z0-9_-]+$", "a name of letters, digits and the signs _ -")]
CLUSTER_PORT = 6222
"""The usual port for the routes between nats-servers."""


class NatsServerSettings(BaseModel):
    """The NATS server that `orchestra up` starts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Path()
    """Data folder of Orchestra; the server's files are in `<data>/nats`. `orchestra up` sets it."""
    host: str = "127.0.0.1"
    """Address that the server listens on."""
    port: int = Field(default=0, ge=0, le=65_535)
    """Port for clients. 0: a free port, kept over restarts."""
    monitor_port: int = Field(default=0, ge=0, le=65_535)
    """Port of the server's monitoring pages; 0: none."""
    max_store_bytes: int = Field(default=4 * 2**30, ge=2**20)
    """Maximum bytes of JetStream on disk. The limits of all streams and buckets must fit into it."""
    sync: Annotated[
        str, TextForm(r"^(always|[0-9]+(ms|s|m|h))$", "`always`, or a number with ms, s, m or h")
    ] = "2m"
    """How often JetStream forces writes onto the disk; "always" survives power loss."""
    name: ServerName = "orchestra"
    """Name of this server, unique in a cluster. With the default a server of a cluster is named after its
    host and four digits, kept in the data folder."""
    join: tuple[str, ...] = ()
    """Other machines of the cluster, as `HOST` or `HOST:PORT` with their `cluster_port`; empty: a single
    server."""
    cluster_name: ServerName = "orchestra"
    """Name of the cluster of NATS servers; the same on every machine."""
    cluster_port: int = Field(default=CLUSTER_PORT, ge=1, le=65_535)
    """The port that other servers of the cluster connect to; only open when `join` has entries."""
    jetstream: bool = True
    """Whether this server keeps streams; a plain peer of a cluster does not."""
    gc_percent: int = Field(default=40, ge=5, le=400)
    """The server collects garbage when its memory has grown by this percentage of what is in use (Go's GOGC).
    During three batches of 10,000 jobs the server used at most 102, 118 and 130 MB with Go's default 100, and
    84, 100 and 99 MB with 40 (tests/bench/jobs.py)."""
    memory_limit_bytes: int = Field(default=128 * 2**20, ge=64 * 2**20)
    """The server collects garbage more often near this limit (Go's GOMEMLIMIT); it refuses nothing."""
    start_timeout_s: float = Field(default=30.0, gt=0)
    """Maximum time until the server takes clients; it reads its whole store first."""
    stop_timeout_s: float = Field(default=10.0, gt=0)
    """Time from SIGTERM to SIGKILL."""
    first_backoff_s: float = Field(default=0.05, gt=0)
    """Pause before the first restart; it doubles with every further death within the window."""
    max_backoff_s: float = Field(default=5.0, gt=0)
    """Maximum pause before a restart."""
    max_restarts: int = Field(default=5, ge=0)
    """Maximum restarts within `restart_window_s`; at one more death the server stays down and the process
    ends."""
    restart_window_s: float = Field(default=60.0, gt=0)
    """Window in which restarts are counted."""

    @field_validator("join")
    @classmethod
    def _addresses(cls, join: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(address(each) for each in join)


def address(text: str) -> str:
    """`HOST[:PORT]` with its port, `CLUSTER_PORT` by default. Raises `ValueError`."""
    host, colon, port = text.strip().rpartition(":")
    if not colon or text.endswith("]"):  # a bare name, or a bare [IPv6]
        host, port = text.strip(), str(CLUSTER_PORT)
    plain = host.startswith("[") or ":" not in host
    if not host or not plain or "/" in host or not port.isdigit() or not 0 < int(port) < 65_536:
        raise ValueError(f"{text!r} is not HOST or HOST:PORT (an IPv6 address in brackets)")
    return f"{host}:{port}"
