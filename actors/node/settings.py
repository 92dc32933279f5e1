"""Settings of a node."""

from __future__ import annotations

import platform
from secrets import token_hex

from pydantic import BaseModel, ConfigDict, Field


class NodeSettings(BaseModel):
    """A node, whatever its backend."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(default="", max_length=128)
    """Name of the node in the registry and in answers, unique in the cluster. Empty:
    `<backend>-<host>-<random>`."""
    labels: dict[str, str] = {}
    """Labels of the node: `{zone = "eu"}`. A request with `orchestra.labels` is only sent to nodes that have
    them."""
    slots: int = Field(default=0, ge=0)
    """Maximum generations in progress; 0: the backend's default."""
    memory_mb: float = Field(default=0, ge=0, le=1e9)
    """Memory for the weights of models, in MB (1e6 bytes). Models that do not fit are offered, and loaded
    when requested. 0: the backend's default, half of the machine's memory for onnx, no limit for others."""
    drain_timeout_s: float = Field(default=30, gt=0)
    """Time for generations in progress to end when the node is drained; the rest continue on other nodes."""
    first_output_s: float = Field(default=300, gt=0)
    """Maximum time to the backend's first output, including its own queue and a long prompt. A generation
    without output by then is moved to another node."""
    stall_s: float = Field(default=20, gt=0)
    """Maximum time between two signs of life (outputs, or any byte of an upstream) after the first output. A
    generation that is silent for longer is moved to another node."""

    def named(self, backend: str) -> str:
        host = platform.node().split(".")[0] or "host"
        return self.id or f"{backend}-{host}-{token_hex(2)}"
