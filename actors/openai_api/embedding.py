"""The response of `/v1/embeddings`."""

from __future__ import annotations

import base64 as b64
from typing import Any

import numpy as np
from pydantic_core import to_json

from actors.openai_api.encoder import Event, ResponseEncoder, usage_json
from orchestration.errors import BackendFailed, InvalidRequest
from orchestration.messages import StreamEnd, Usage, Vectors


class EmbeddingEncoder(ResponseEncoder):
    """Vectors arrive as base64 of little-endian float32; clients that ask for base64 get them unchanged.

    Each vector is encoded when it arrives: 2,000 at once would block the event loop for 0.1 s.
    """

    def __init__(self, model: str, inputs: int, *, base64: bool, dimensions: int | None = None) -> None:
        """Vectors of another length than `dimensions` are refused, since they cannot be shortened here."""
        self.model = model
        self.base64 = base64
        self.dimensions = dimensions
        self.encoded: list[bytes | None] = [None] * inputs
        self.usage = Usage()

    def encode_event(self, event: Event) -> tuple[bytes, ...]:
        raise TypeError("embeddings are not streamed")

    def add(self, event: Event) -> None:
        if isinstance(event, Vectors):
            for index, vector in enumerate(event.vectors, event.index):
                if index < len(self.encoded):
                    self.encoded[index] = self._entry(index, vector)
        elif isinstance(event, StreamEnd):
            self.usage = event.finish.usage

    def _entry(self, index: int, vector: str) -> bytes:
        if self.dimensions is not None and (length := len(b64.b64decode(vector)) // 4) != self.dimensions:
            raise InvalidRequest(
                f"dimensions is {self.dimensions}; model {self.model!r} makes vectors of {length} numbers",
                param="dimensions",
            )
        shown = vector if self.base64 else np.frombuffer(b64.b64decode(vector), "<f4").tolist()
        return to_json({"object": "embedding", "index": index, "embedding": shown})

    def encode_full(self) -> bytes:
        entries = []
        for index, entry in enumerate(self.encoded):
            if entry is None:
                raise BackendFailed(f"the node sent no vector for input {index}")
            entries.append(entry)
        fields: dict[str, Any] = {"cache": self.origin} if self.origin else {}
        if self.notes:
            fields["notes"] = self.notes
        orchestra = b',"orchestra":%b' % to_json(fields) if fields else b""
        return b'{"object":"list","data":[%b],"model":%b,"usage":%b%b}' % (
            b",".join(entries),
            to_json(self.model),
            to_json(usage_json(self.usage, text=False)),
            orchestra,
        )
