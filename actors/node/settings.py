"""How a node presents itself."""

from __future__ import annotations

import platform
from secrets import token_hex

from pydantic import BaseModel, ConfigDict, Field


class NodeSettings(BaseModel):
    """`id` names the node in the registry and in answers; it must be unique in the cluster."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str = Field(default="", max_length=128)
    """Empty: `<backend>-<host>-<random>`."""
    labels: dict[str, str] = {}
    slots: int = Field(default=0, ge=0)
    """Generations at once; 0 leaves it to the backend."""
    memory_mb: float = Field(default=0, ge=0, le=1e9)
    """For the weights of models, in MB (1e6 bytes). Those that do not fit are offered, and loaded when they
    are asked for. 0 leaves it to the backend: half of the machine's memory for onnx, no limit for others."""
    drain_timeout_s: float = Field(default=30, gt=0)
    """What is not finished by then goes on at another node."""
    first_output_s: float = Field(default=300, gt=0)
    """Until the first output of a backend, a long prompt and its own queue included. A generation without one
    goes elsewhere."""
    stall_s: float = Field(default=20, gt=0)
    """Between two signs of life of a backend, once it has begun: outputs, or any byte from an upstream. A
    generation silent for longer goes elsewhere."""

    def named(self, backend: str) -> str:
        host = platform.node().split(".")[0] or "host"
        return self.id or f"{backend}-{host}-{token_hex(2)}"
