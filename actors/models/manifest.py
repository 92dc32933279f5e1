"""The manifest of a model's folder: its content and its source.

A model folder, `<data>/models/<name>/`, is complete when its `orchestra.json` is there (written last):

    model.onnx, model.onnx.data   the graph and its weights
    tokenizer.json                Hugging Face tokenizers format
    orchestra.json                this manifest
    LICENSE                       licence text or name, as the source gave it

The graph of a chat model takes

    input_ids               int64   [batch, sequence]
    seqlens_k               int32   [batch]            tokens in the cache after this call, minus 1
    total_sequence_length   int32   scalar             the largest of seqlens_k, plus 1
    logits_index            int64   [picks]            positions in the flattened [batch * sequence]
    past_key_values.{i}.key, .value                    float32 [batch, kv_heads, max_length, head_dim]

and gives `logits` float32 [picks, vocabulary] and `present.{i}.key, .value`, which may be bound to the
buffers of the past. It computes in float32 or as good as that: the logits of a row differ by less than 0.01
from float64's, whatever the processor, the number of rows, and the cut of a prompt into calls.

The graph of an embedding model takes `input_ids` and `attention_mask`, int64 [batch, sequence], and gives
`embedding` float32 [batch, hidden], each row of length 1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

MANIFEST = "orchestra.json"


class ModelManifest(BaseModel):
    """What a runtime must know about a model without opening its graph."""

    model_config = ConfigDict(frozen=True)

    format: Literal[1, 2] = 2
    """Format of a chat model's graph. Format 1 rounded activations to 8 bits; see `outdated`."""
    name: str
    kind: Literal["chat", "embedding"]
    architecture: str
    context_tokens: int
    vocabulary: int
    layers: int = 0
    heads: int = 0
    kv_heads: int = 0
    head_dim: int = 0
    hidden: int
    parameters: int
    weights: str
    """The layout of the weights: `q4_1`, `q8`, `f32`, `int8`."""
    bos_token_id: int | None = None
    add_bos: bool = False
    eog_token_ids: tuple[int, ...] = ()
    """Tokens that end a generation."""
    chat_template: str | None = None
    bos_token: str = ""
    eos_token: str = ""
    license: str = ""
    source: str = ""
    source_sha256: str = ""
    files: dict[str, str] = {}
    """File name to sha256, every file of the folder but the manifest."""
    sizes: dict[str, int] = {}
    """File name to size in bytes."""

    @property
    def outdated(self) -> bool:
        """Whether an older importer wrote the graph, so that the accuracy above does not hold."""
        return self.kind == "chat" and self.format < 2

    @classmethod
    def read(cls, folder: Path) -> ModelManifest:
        """The manifest of `folder`. Raises FileNotFoundError, or pydantic's ValidationError."""
        return cls.model_validate_json((folder / MANIFEST).read_bytes())
