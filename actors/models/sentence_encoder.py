"""Imports a BERT sentence encoder (mean pooling of sentence-transformers) from its safetensors file."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open

from actors.models.errors import CorruptModel, UnsupportedModel
from actors.models.folder import LICENSE, Report, replacing, write_manifest
from actors.models.graph import MICROSOFT, GraphWriter
from actors.models.manifest import ModelManifest
from actors.models.tokenizer import TOKENIZER

Floats = NDArray[np.float32]


def read_safetensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every float tensor of `path` by name, in float32. Integer tensors are left out.

    Raises `CorruptModel`, and `UnsupportedModel` for floats other than F32 and F16.
    """
    try:
        with safe_open(path, framework="np") as file:
            kinds = {name: file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118
            floats = {name: kind for name, kind in kinds.items() if not kind.startswith(("I", "U", "BOOL"))}
            for name, kind in floats.items():
                if kind not in ("F32", "F16"):
                    raise UnsupportedModel(
                        f"tensor {name!r} of type {kind} is not supported; F32 and F16 are"
                    )
            return {name: file.get_tensor(name).astype(np.float32, copy=False) for name in floats}
    except SafetensorError as error:
        raise CorruptModel(f"{path.name} is a damaged or truncated safetensors file: {error}") from error


class BertConfig(BaseModel):
    """The fields of Hugging Face's config.json that define the graph."""

    model_config = ConfigDict(frozen=True)

    model_type: str
    hidden_act: str
    position_embedding_type: str = "absolute"
    hidden_size: int = Field(gt=0)
    num_hidden_layers: int = Field(gt=0)
    num_attention_heads: int = Field(gt=0)
    max_position_embeddings: int = Field(gt=0)
    vocab_size: int = Field(gt=0)
    layer_norm_eps: float = Field(gt=0)

    @classmethod
    def read(cls, file: Path) -> BertConfig:
        """Raises `CorruptModel`, and `UnsupportedModel` for a configuration that the graph does not
        support."""
        try:
            config = cls.model_validate_json(file.read_bytes())
        except ValidationError as error:
            raise CorruptModel(f"{file.name} is no configuration of a BERT model: {error}") from error
        kinds = (config.model_type, config.hidden_act, config.position_embedding_type)
        if kinds != ("bert", "gelu", "absolute"):
            raise UnsupportedModel(f"a sentence encoder of kind {kinds}; ('bert', 'gelu', 'absolute') is run")
        return config


class BertGraph:
    """Writes the graph: from token ids and mask to one unit vector for each row."""

    def __init__(self, weights: dict[str, Floats], config: BertConfig, writer: GraphWriter) -> None:
        self.config = config
        self._weights = weights
        self._writer = writer
        self.parameters = 0

    def write(self, progress: Callable[[float], None]) -> None:
        """Add all nodes. Raises `CorruptModel` if a tensor is missing."""
        writer, config = self._writer, self.config
        writer.input("input_ids", TensorProto.INT64, ["batch", "sequence"])
        writer.input("attention_mask", TensorProto.INT64, ["batch", "sequence"])
        writer.output("embedding", TensorProto.FLOAT, ["batch", config.hidden_size])
        mask = writer.node("Cast", ["attention_mask"], "mask", to=TensorProto.INT32)
        x = self._embedded()
        for layer in range(config.num_hidden_layers):
            x = self._layer(f"encoder.layer.{layer}", x, mask)
            progress((layer + 1) / config.num_hidden_layers)
        self._pooled(x)

    def _tensor(self, name: str, values: Floats | None = None) -> str:
        if values is None:
            values = self._values(name)
        self.parameters += values.size
        return self._writer.tensor(name, values)

    def _values(self, name: str) -> Floats:
        if name not in self._weights:
            raise CorruptModel(f"tensor {name!r} is missing")
        return self._weights[name]

    def _embedded(self) -> str:
        writer = self._writer
        # One row of types is ever used, so it is added to the positions.
        positions = self._values("embeddings.position_embeddings.weight")
        positions = positions + self._values("embeddings.token_type_embeddings.weight")[0]
        words = self._tensor("embeddings.word_embeddings.weight")
        looked_up = writer.node("Gather", [words, "input_ids"], "embeddings.words")
        shape = writer.node("Shape", ["input_ids"], "embeddings.length", start=1, end=2)
        zero = writer.tensor("zero", np.array([0], np.int64))
        table = self._tensor("embeddings.positions.weight", positions)
        placed = writer.node("Slice", [table, zero, shape, zero], "embeddings.positions")
        total = writer.node("Add", [looked_up, placed], "embeddings.sum")
        return writer.node(
            "LayerNormalization",
            [
                total,
                self._tensor("embeddings.LayerNorm.weight"),
                self._tensor("embeddings.LayerNorm.bias"),
            ],
            "embeddings.output",
            axis=-1,
            epsilon=self.config.layer_norm_eps,
        )

    def _layer(self, name: str, x: str, mask: str) -> str:
        writer = self._writer
        parts = [f"{name}.attention.self.{part}" for part in ("query", "key", "value")]
        weight = np.concatenate([self._values(f"{part}.weight") for part in parts]).T
        bias = np.concatenate([self._values(f"{part}.bias") for part in parts])
        attention = writer.node(
            "Attention",
            [x, self._tensor(f"{name}.qkv.weight", weight), self._tensor(f"{name}.qkv.bias", bias), mask],
            f"{name}.attention",
            domain=MICROSOFT,
            num_heads=self.config.num_attention_heads,
        )
        x = self._added(f"{name}.attention.output", attention, x)
        up = self._product(f"{name}.intermediate.dense", x)
        bias_name = self._tensor(f"{name}.intermediate.dense.bias")
        active = writer.node("BiasGelu", [up, bias_name], f"{name}.active", domain=MICROSOFT)
        return self._added(f"{name}.output", active, x)

    def _product(self, name: str, x: str) -> str:
        weight = self._tensor(f"{name}.weight", self._values(f"{name}.weight").T)
        return self._writer.node("MatMul", [x, weight], name)

    def _added(self, name: str, x: str, residual: str) -> str:
        inputs = [self._product(f"{name}.dense", x), residual]
        inputs += [
            self._tensor(f"{name}.{part}") for part in ("LayerNorm.weight", "LayerNorm.bias", "dense.bias")
        ]
        return self._writer.node(
            "SkipLayerNormalization",
            inputs,
            f"{name}.normed",
            domain=MICROSOFT,
            epsilon=self.config.layer_norm_eps,
        )

    def _pooled(self, x: str) -> None:
        """The mean over the tokens under the mask, scaled to length 1 (so its count cancels out)."""
        writer = self._writer
        weights = writer.node("Cast", ["attention_mask"], "pooling.weights", to=TensorProto.FLOAT)
        last = writer.tensor("last_axis", np.array([-1], np.int64))
        column = writer.node("Unsqueeze", [weights, last], "pooling.column")
        masked = writer.node("Mul", [x, column], "pooling.kept")
        tokens = writer.tensor("token_axis", np.array([1], np.int64))
        summed = writer.node("ReduceSum", [masked, tokens], "pooling.sum", keepdims=0)
        writer.node("LpNormalization", [summed], "embedding", axis=-1, p=2)


def import_sentence_encoder(
    weights: Path,
    tokenizer: Path,
    config_file: Path,
    manifest: dict[str, str],
    folder: Path,
    report: Report,
) -> ModelManifest:
    """Write the model folder `folder`, in float32 like the source; the caller holds its lock.

    `manifest` gives `name`, `license`, `source` and `source_sha256`. Raises `CorruptModel`,
    `UnsupportedModel` and `ModelStorage`. Blocks for about a second.
    """
    config = BertConfig.read(config_file)
    with replacing(folder) as staging:
        with GraphWriter(staging) as writer:
            graph = BertGraph(read_safetensors(weights), config, writer)
            graph.write(lambda done: report("converting weights", done))
            writer.save("orchestra")
        try:
            json.loads(tokenizer.read_bytes())
        except ValueError as error:
            raise CorruptModel(f"{tokenizer.name} is no tokenizer: {error}") from error
        shutil.copyfile(tokenizer, staging / TOKENIZER)
        (staging / LICENSE).write_text(f"{manifest['license'] or 'unknown'}\n", encoding="utf-8")
        return write_manifest(
            staging,
            ModelManifest(
                kind="embedding",
                architecture="bert",
                context_tokens=config.max_position_embeddings,
                vocabulary=config.vocab_size,
                layers=config.num_hidden_layers,
                heads=config.num_attention_heads,
                kv_heads=config.num_attention_heads,
                head_dim=config.hidden_size // config.num_attention_heads,
                hidden=config.hidden_size,
                parameters=graph.parameters,
                weights="f32",
                **manifest,
            ),
        )
