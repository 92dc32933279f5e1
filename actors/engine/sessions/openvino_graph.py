"""A llama as an OpenVINO model, from the weights of the ONNX graph that `actors.models.llama` wrote."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
import openvino.opset15 as op
from numpy.typing import NDArray
from openvino.op import _PagedAttentionExtension as PagedAttention

from actors.engine.sessions.llama_weights import LlamaWeights
from actors.models.manifest import ModelManifest
from actors.models.weights import BlockWeights, Floats, Matrix

Node = Any
"""A node of OpenVINO, or one of its outputs."""

INPUTS = {
    "input_ids": (ov.Type.i64, [-1]),
    "position_ids": (ov.Type.i64, [-1]),
    "past_lens": (ov.Type.i32, [-1]),
    "subsequence_begins": (ov.Type.i32, [-1]),
    "block_indices": (ov.Type.i32, [-1]),
    "block_indices_begins": (ov.Type.i32, [-1]),
    "max_context_len": (ov.Type.i32, []),
    "logits_index": (ov.Type.i64, [-1]),
}
"""The inputs beside the cache: tokens of all rows one after another, tables of blocks, and the positions
whose `logits` [picks, vocabulary] are wanted."""


def cache_names(layer: int) -> tuple[str, str]:
    """The inputs for keys and values of `layer`, [blocks, kv_heads, block, head_dim]."""
    return f"key_cache.{layer}", f"value_cache.{layer}"


class OpenVinoGraph:
    """Writes the model. Weights stay as they are in the file, see `_weights`.

    `rounded`: products are made for a runtime that rounds activations to 8 bits. Raises BackendFailed for a
    graph that `actors.models.llama` did not write.
    """

    def __init__(self, folder: Path, manifest: ModelManifest, *, rounded: bool) -> None:
        self.source = LlamaWeights(folder)
        self._manifest = manifest
        self._rounded = rounded
        self.mapped: list[NDArray[Any]] = []
        """Weights of `source` that the model does not copy: they must live as long as it."""
        self._inputs = {name: _parameter(name, *kind) for name, kind in INPUTS.items()}
        self._scale = _constant(np.array(manifest.head_dim**-0.5, np.float32))
        self._cos, self._sin = self._rotary("cos_cache"), self._rotary("sin_cache")

    def model(self) -> Any:
        """The `openvino.Model`."""
        logits, embedding = self.source.stored("logits"), self.source.stored_embedding()
        table = self._weights(logits, rounded=self._rounded)
        if embedding is None and table[2] is None:
            words = table[0]
        else:
            words, *_ = self._weights(logits if embedding is None else embedding, rounded=False)
        x = op.gather(words, self._inputs["input_ids"], _constant(0))
        for layer in range(self._manifest.layers):
            x = self._layer(layer, x)
        x = self._product(self._normed("output_norm", x), *table)
        x.output(0).get_tensor().set_names({"logits"})
        return ov.Model([op.result(x)], list(self._inputs.values()), "llama")

    def _layer(self, number: int, x: Node) -> Node:
        name, source, manifest = f"blk.{number}", self.source, self._manifest
        width = manifest.heads * manifest.head_dim
        kv_width = manifest.kv_heads * manifest.head_dim
        normed = self._normed(f"{name}.attn_norm", x)
        qkv = self._split(normed, source.stored_qkv(number), [width, kv_width, kv_width])
        attention = self._attention(number, *qkv)
        if number == manifest.layers - 1:  # the rest needs the wanted positions only
            x, attention = (
                op.gather(each, self._inputs["logits_index"], _constant(0)) for each in (x, attention)
            )
        x = op.add(x, self._linear(attention, source.stored(f"{name}.attn_output")))
        normed = self._normed(f"{name}.ffn_norm", x)
        packed = source.stored_gate_up(number)
        half = sum(map(_rows, packed)) // 2
        gate, up = self._split(normed, packed, [half, half])
        return op.add(x, self._linear(op.multiply(op.swish(gate), up), source.stored(f"{name}.ffn_down")))

    def _attention(self, layer: int, q: Node, k: Node, v: Node) -> Node:
        manifest, inputs = self._manifest, self._inputs
        keys, values = (_parameter(name, ov.Type.dynamic, [-1] * 4) for name in cache_names(layer))
        inputs |= dict(zip(cache_names(layer), (keys, values), strict=True))
        number = _constant(np.array(0, np.int32))
        ints, floats = _constant(np.empty(0, np.int32)), _constant(np.empty(0, np.float32))
        # After `max_context_len` there is nothing but what is not in use: scores, rotation, sparse attention.
        unused = [ints, ints, ints, floats, floats, number, number]
        unused += [_constant(np.empty((0, 0, 0, 0), np.float32)), number, ints, ints, ints, ints]
        unused += [_constant(np.empty(0, np.uint8)), ints]
        node = PagedAttention(
            [
                each if isinstance(each, ov.Output) else each.output(0)
                for each in (
                    self._rotated(q, manifest.heads),
                    self._rotated(k, manifest.kv_heads),
                    v,
                    keys,
                    values,
                    *(inputs[name] for name in list(INPUTS)[2:6]),
                    self._scale,
                    number,
                    floats,
                    inputs["max_context_len"],
                    *unused,
                )
            ]
        )
        info = node.get_rt_info()
        info["num_k_heads"] = info["num_v_heads"] = manifest.kv_heads
        info["k_head_size"] = info["v_head_size"] = manifest.head_dim
        return op.reshape(node.output(0), _constant([-1, manifest.heads * manifest.head_dim]), False)

    def _rotary(self, name: str) -> Node:
        table = self.source.vector(name)
        whole = np.concatenate([table, table], axis=1)[:, None, None, :]
        return op.gather(_constant(whole), self._inputs["position_ids"], _constant(0))

    def _rotated(self, x: Node, heads: int) -> Node:
        """Rotary embedding of x [tokens, heads * head_dim]."""
        head, half = self._manifest.head_dim, self._manifest.head_dim // 2
        x = op.reshape(x, _constant([-1, heads, 1, head]), False)
        one, axis = _constant([1]), _constant([3])
        first = op.slice(x, _constant([0]), _constant([half]), one, axis)
        second = op.slice(x, _constant([half]), _constant([head]), one, axis)
        turned = op.concat([op.multiply(second, _constant(np.array([-1], np.float32))), first], 3)
        x = op.add(op.multiply(x, self._cos), op.multiply(turned, self._sin))
        return op.reshape(x, _constant([-1, heads * head]), False)

    def _normed(self, name: str, x: Node) -> Node:
        """RMS norm, in the form that OpenVINO joins into one operation."""
        square = op.reduce_mean(op.power(x, _constant(np.array([[2]], np.float32))), _constant([-1]), True)
        root = op.sqrt(op.add(square, _constant(np.array([[self.source.epsilon]], np.float32))))
        scaled = op.multiply(op.divide(_constant(np.array([[1]], np.float32)), root), x)
        return op.multiply(scaled, _constant(self.source.norm(name)[None]))

    def _split(self, x: Node, parts: list[Matrix], sizes: list[int]) -> list[Node]:
        """The products of x, of `sizes` columns; `parts` are one matrix for all or one for each."""
        if len(parts) > 1:
            return [self._linear(x, part) for part in parts]
        whole = op.variadic_split(self._linear(x, parts[0]), _constant(1), _constant(sizes))
        return [whole.output(at) for at in range(len(sizes))]

    def _linear(self, x: Node, matrix: Matrix) -> Node:
        return self._product(x, *self._weights(matrix, rounded=self._rounded))

    def _product(self, x: Node, weights: Node, block: int, offsets: Floats | None) -> Node:
        product = op.matmul(x, weights, False, True)
        if offsets is None:
            return product
        blocks = op.reshape(x, _constant([0, offsets.shape[1], block]), True)
        sums = op.reduce_sum(blocks, _constant([-1]), False)
        return op.add(product, op.matmul(sums, _constant(offsets), False, True))

    def _weights(self, matrix: Matrix, *, rounded: bool) -> tuple[Node, int, Floats | None]:
        """Nodes that give the matrix [rows, columns], the columns of a block, and offsets to add apart.

        In float32 an offset is a zero point that is no whole number, which is exact. (OpenVINO GenAI rounds
        it to 4 bits when it reads a GGUF file: perplexity of SmolLM2 25.1 instead of 21.0, greedy agreement
        with float64 0.73.) The products in 8 bits take no such zero points: there the offset is added as
        the sums of each block of x times the offsets.
        """
        if not isinstance(matrix, BlockWeights):
            return _constant(matrix), 0, None
        codes, scales, apart = self._codes(matrix), matrix.scales, matrix.offsets
        if apart is None or rounded:
            zeros = op.convert(_constant(np.array(2 ** (matrix.bits - 1), np.uint8)), ov.Type.f32)
        else:
            scales, whole = _zero_points(matrix)
            zeros, apart = _constant(whole[..., None]), None
        values = op.multiply(op.subtract(codes, zeros), _constant(scales[..., None]))
        shape = _constant([matrix.rows, matrix.columns])
        return op.reshape(values, shape, False), matrix.block, apart

    def _codes(self, matrix: BlockWeights) -> Node:
        """The codes [rows, blocks, block] as float32."""
        shape = ov.Shape([*matrix.scales.shape, matrix.block])
        kind = ov.Type.u4 if matrix.bits == 4 else ov.Type.u8
        raw = np.ascontiguousarray(matrix.codes).reshape(-1)
        self.mapped.append(raw)
        return op.convert(op.constant(ov.Tensor(raw, shape, kind), shared_memory=True), ov.Type.f32)


def _zero_points(matrix: BlockWeights) -> tuple[Floats, Floats]:
    """Scales and zero points, so that `scale * (code - zero)` is the value of a code.

    A block of equal values has the scale 0: it gets one so small that the codes do not matter.
    """
    assert matrix.offsets is not None
    scales = matrix.scales
    if not scales.all():
        tiny = np.abs(matrix.offsets) * np.float32(1e-9) + np.float32(1e-30)
        scales = np.where(scales == 0, tiny, scales)
    return scales, np.float32(2 ** (matrix.bits - 1)) - matrix.offsets / scales


def _rows(matrix: Matrix) -> int:
    return matrix.rows if isinstance(matrix, BlockWeights) else int(matrix.shape[0])


def _parameter(name: str, kind: Any, shape: list[int]) -> Node:
    node = op.parameter(ov.PartialShape(shape), kind)
    node.set_friendly_name(name)
    node.output(0).get_tensor().set_names({name})
    return node


def _constant(values: NDArray[Any] | list[int] | int) -> Node:
    array = np.asarray(values)
    return op.constant(np.ascontiguousarray(array).reshape(array.shape))
