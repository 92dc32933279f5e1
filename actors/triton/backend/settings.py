"""What one Triton server is, and how long it may take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from actors.backends.upstream_names import UpstreamNames

Seconds = Annotated[float, Field(gt=0, le=86_400)]

METRICS_PORT = 8002


class TritonSettings(BaseModel):
    """Settings of a `TritonBackend`.

    `models` maps served names to the server's; empty means every model of its repository whose tensors are
    those of a chat or an embedding model. `models_folder` holds installed models: what a model's
    configuration does not tell (context, size, chat template) is read from the one of the same name there.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = "grpc://127.0.0.1:8001"
    metrics_url: str = ""
    """Empty: port 8002 of the same host, Triton's default."""
    models: UpstreamNames = {}
    models_folder: Path | None = None
    slots: int = Field(default=32, ge=1, le=4096)

    connect_timeout_s: Seconds = 5.0
    """For each question about the server or a model, which all are answered at once."""
    first_token_timeout_s: Seconds = 120.0
    """From a request to its first token, the server's own queue included; and for a batch of embeddings."""
    token_timeout_s: Seconds = 15.0
    """Between two tokens of a stream: a server does not tell that what computed them died."""
    load_timeout_s: Seconds = 300.0
    unload_timeout_s: Seconds = 60.0
    """What runs on the model is finished within it."""
    watch_s: Seconds = 2.0
    """A model that was silent for so long is asked whether it lives; load is read as often."""
    batching_target_s: float = Field(default=0, ge=0, le=60)
    """From arrival to end, for the embedding models that batch dynamically: how long they wait for company,
    and for how much, moves with the load within this. 0 leaves it as the repository has it."""
    batching_hold_s: Seconds = 60.0
    """Between two such changes at least: each starts the model's process anew, beside the old one."""
    batching_calm_s: Seconds = 300.0
    """Of little load, before a change to less."""
    probe_timeout_s: Seconds = 10.0
    """For that answer, before the model is unloaded and loaded anew."""

    @field_validator("url")
    @classmethod
    def _grpc_url(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme not in {"grpc", "grpcs"} or not url.hostname or not url.port:
            raise ValueError("url must be grpc://HOST:PORT or grpcs://HOST:PORT")
        if url.path.strip("/") or url.query or url.username is not None:
            raise ValueError("url must be no more than grpc://HOST:PORT")
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
        """Where the metrics are."""
        host = urlsplit(self.url).hostname or ""
        bracketed = f"[{host}]" if ":" in host else host
        return self.metrics_url or f"http://{bracketed}:{METRICS_PORT}/metrics"
