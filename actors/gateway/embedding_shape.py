"""The answer of `/v1/embeddings`."""

from __future__ import annotations

import base64 as b64

import numpy as np
from pydantic_core import to_json

from actors.gateway.shape import Event, Shape, usage_of
from orchestration.errors import BackendFailed
from orchestration.messages import Ended, Usage, Vectors


class EmbeddingShape(Shape):
    """Vectors arrive as base64 of little-endian float32, which is also what base64 callers get."""

    def __init__(self, model: str, inputs: int, *, base64: bool) -> None:
        self.model = model
        self.base64 = base64
        self.vectors: list[str | None] = [None] * inputs
        self.usage = Usage()

    def piece(self, event: Event) -> tuple[bytes, ...]:
        raise TypeError("embeddings are not streamed")

    def add(self, event: Event) -> None:
        if isinstance(event, Vectors):
            for index, vector in enumerate(event.vectors, event.index):
                if index < len(self.vectors):
                    self.vectors[index] = vector
        elif isinstance(event, Ended):
            self.usage = event.usage

    def whole(self) -> bytes:
        data = []
        for index, vector in enumerate(self.vectors):
            if vector is None:
                raise BackendFailed(f"the node sent no vector for input {index}")
            shown = vector if self.base64 else np.frombuffer(b64.b64decode(vector), "<f4").tolist()
            data.append({"object": "embedding", "index": index, "embedding": shown})
        return to_json(
            {
                "object": "list",
                "data": data,
                "model": self.model,
                "usage": usage_of(self.usage, text=False),
            }
        )
