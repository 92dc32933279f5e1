"""Settings of the client of a Triton server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from actors.backends.base import UpstreamNames

Seconds = Annotated[float, Field(gt=0, le=86_400)]

METRICS_PORT = 8002


class TritonSettings(BaseModel):
    """The backend `triton`, a client of a Triton server."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = "grpc://127.0.0.1:8001"
    """gRPC address of the server, `grpc://HOST:PORT` or `grpcs://HOST:PORT`. `orchestra node --backend
    triton` without `--url` starts a server and uses it."""
    metrics_url: str = ""
    """URL of the server's metrics. Empty: port 8002 of the same host, Triton's default."""
    models: UpstreamNames = {}
    """Models to serve: the name in this cluster, and the server's name. Empty: all chat and embedding models
    of its repository, recognised by their tensors."""
    models_folder: Path | None = None
    """Folder of installed models. Context, size and chat template of a served model are read from the one of
    the same name."""
    slots: int = Field(default=32, ge=1, le=4096)
    """Maximum generations in progress at the server."""

    connect_timeout_s: Seconds = 5.0
    """Timeout of queries about the server or a model."""
    first_token_timeout_s: Seconds = 120.0
    """Maximum time to the first token, including the server's queue; also for a batch of embeddings."""
    token_timeout_s: Seconds = 15.0
    """Maximum time between two tokens: a server does not report that the model's process died."""
    load_timeout_s: Seconds = 300.0
    """Maximum time to load a model."""
    unload_timeout_s: Seconds = 60.0
    """Maximum time for running requests to end when a model is unloaded."""
    watch_s: Seconds = 2.0
    """Interval of health checks of silent models, and of readings of the load."""
    batching_target_s: float = Field(default=0, ge=0, le=60)
    """Target duration of an embedding request. Queue delay and batch size of dynamically batched models are
    adapted to the load within it. 0: they stay as the repository configures them."""
    batching_hold_s: Seconds = 60.0
    """Minimum time between two such changes; each restarts the model's process beside the old one."""
    batching_calm_s: Seconds = 300.0
    """Duration of low load before a change to smaller batches."""
    probe_timeout_s: Seconds = 10.0
    """Timeout of a probe of a silent model, before it is reloaded."""

    @field_validator("url")
    @classmethod
    def _grpc_url(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme not in {"grpc", "grpcs"} or not url.hostname or not url.port:
            raise ValueError("url must be grpc://HOST:PORT or grpcs://HOST:PORT")
        if url.path.strip("/") or url.query or url.username is not None:
            raise ValueError("url must have only grpc://HOST:PORT, without path, query or user")
        return value.rstrip("/")

    @property
    def host(self) -> str:
        """Host and port, for the client and for messages."""
        return urlsplit(self.url).netloc

    @property
    def secure(self) -> bool:
        return urlsplit(self.url).scheme == "grpcs"

    @property
    def metrics(self) -> str:
        """The URL of the metrics."""
        host = urlsplit(self.url).hostname or ""
        bracketed = f"[{host}]" if ":" in host else host
        return self.metrics_url or f"http://{bracketed}:{METRICS_PORT}/metrics"
