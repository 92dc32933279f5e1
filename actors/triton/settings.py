"""Settings of a tritonserver that Orchestra starts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Runtime = Literal["torch", "onnxruntime"]
"""The runtime of chat models inside Triton."""


class TritonServerSettings(BaseModel):
    """The Triton server that a node or `orchestra triton` starts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path = Path()
    """The folder for log and backends. For a node always `<data>/triton`."""
    repository: Path = Path()
    """The model repository; it must exist. Empty (for a node): `<data>/triton/repository`, which the node
    writes at each start for the models that it serves, with `device`, `partitions` and `runtime`."""
    device: str = "cpu"
    """Device of the models: `cpu`, `cuda:0`, or one for each part, `cuda:0,cuda:1`."""
    partitions: int = Field(default=1, ge=1)
    """Number of parts into which each chat model is split, for pipeline parallelism."""
    runtime: Runtime = "torch"
    """Runtime of chat models."""
    grpc_port: int = Field(default=0, ge=0, le=65_535)
    """Port for gRPC. 0: a free port, kept over restarts."""
    http_port: int = Field(default=0, ge=0, le=65_535)
    """Port for HTTP. 0: a free port, kept over restarts."""
    metrics_port: int = Field(default=0, ge=0, le=65_535)
    """Port of the metrics. 0: a free port, kept over restarts."""
    trace_url: str = ""
    """OTLP/HTTP address for Triton's own spans, for example http://127.0.0.1:4318/v1/traces; empty: no
    tracing. Only requests with a `traceparent` are traced."""
    auto_complete: bool = False
    """Whether Triton may complete a config.pbtxt; it then starts the process of a Python model twice. A node
    sets it if `repository` is set."""
    max_log_bytes: int = Field(default=16 * 2**20, ge=2**16)
    """Maximum size of the log at a start of the server; a larger one is moved to `server.log.1`."""
    start_timeout_s: float = Field(default=60.0, gt=0)
    """Maximum time until the server is ready."""
    stop_timeout_s: float = Field(default=20.0, gt=0)
    """Time from SIGTERM, after which streams may finish, to SIGKILL."""
    first_backoff_s: float = Field(default=0.2, gt=0)
    """Pause before the first restart; it doubles with every further death within the window."""
    max_backoff_s: float = Field(default=10.0, gt=0)
    """Maximum pause before a restart."""
    max_restarts: int = Field(default=5, ge=0)
    """Maximum restarts within `restart_window_s`; at one more death the server stays down and the process
    ends."""
    restart_window_s: float = Field(default=120.0, gt=0)
    """Window in which restarts are counted."""
