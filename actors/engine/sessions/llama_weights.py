"""Reads the weights of a llama from the ONNX graph that `actors.models.llama` wrote."""

from __future__ import annotations

import math
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from actors.models.graph import DATA, GRAPH
from actors.models.weights import BlockWeights, Floats, Matrix
from orchestration.errors import BackendFailed

_QKV = ("attn_q", "attn_k", "attn_v")
_GATE_UP = ("ffn_gate", "ffn_up")


class LlamaWeights:
    """The weights as float32 matrices [rows, columns], dequantised one at a time, or as stored: views of the
    mapped file.

    Raises BackendFailed for a graph that `actors.models.llama` did not write.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = folder / GRAPH
        try:
            graph = onnx.load(path, load_external_data=False).graph
        except Exception as error:  # protobuf raises classes of its own for what it cannot read
            raise BackendFailed(f"cannot load model {str(path)!r}: {error}") from error
        with (folder / DATA).open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        self._tensors = {tensor.name: tensor for tensor in graph.initializer}
        self._nodes = {name: node for node in graph.node for name in node.output if name}
        self._nodes |= {node.input[1]: node for node in graph.node if node.op_type == "MatMulNBits"}

    @property
    def epsilon(self) -> float:
        """The epsilon of the RMS norms."""
        return float(self._attribute("output_norm", "epsilon"))

    def vector(self, name: str) -> Floats:
        return self._array(name)

    def norm(self, name: str) -> Floats:
        return self._array(f"{name}.weight")

    def qkv(self, layer: int) -> Floats:
        """Rows of queries, keys and values; the rotary pairs of each head are in halves."""
        return np.concatenate([values(part) for part in self.stored_qkv(layer)])

    def gate_up(self, layer: int) -> Floats:
        return np.concatenate([values(part) for part in self.stored_gate_up(layer)])

    def matrix(self, name: str) -> Floats:
        """The weights of the product `name`."""
        return values(self.stored(name))

    def embedding(self) -> Floats | None:
        """The table [vocabulary, hidden]; None if it is tied to the output layer."""
        table = self.stored_embedding()
        return None if table is None else values(table)

    def stored_qkv(self, layer: int) -> list[Matrix]:
        """As `qkv`, in the layout of the file: one matrix if the three have the same, else three."""
        return self._packed(f"blk.{layer}", "attn_qkv", _QKV)

    def stored_gate_up(self, layer: int) -> list[Matrix]:
        return self._packed(f"blk.{layer}", "ffn_gate_up", _GATE_UP)

    def stored(self, name: str) -> Matrix:
        """The weights of the product `name` in the layout of the file."""
        if f"{name}.weight" in self._tensors:
            return self.vector(f"{name}.weight").T
        codes, offsets = f"{name}.codes", f"{name}.offsets"
        return BlockWeights(
            bits=int(self._attribute(codes, "bits")),
            block=int(self._attribute(codes, "block_size")),
            codes=self._array(codes),
            scales=self._array(f"{name}.scales"),
            offsets=self._array(offsets).T if offsets in self._tensors else None,
        )

    def stored_embedding(self) -> Matrix | None:
        if "embedding" in self._tensors:
            return self.vector("embedding")
        if "embedding.codes" not in self._tensors:
            return None
        offsets = "embedding.offsets"
        return BlockWeights(
            bits=8,
            block=int(self._attribute("embedded.blocks", "block_size")),
            codes=self._array("embedding.codes"),
            scales=self._array("embedding.scales_3d")[..., 0],
            offsets=self._array(offsets)[..., 0] if offsets in self._tensors else None,
        )

    def _packed(self, layer: str, together: str, parts: tuple[str, ...]) -> list[Matrix]:
        whole = f"{layer}.{together}"
        if f"{whole}.codes" in self._tensors or f"{whole}.weight" in self._tensors:
            return [self.stored(whole)]
        return [self.stored(f"{layer}.{part}") for part in parts]

    def _array(self, name: str) -> NDArray[Any]:
        tensor = self._tensors.get(name)
        if tensor is None:
            raise BackendFailed(
                f"the graph in {str(self._folder)!r} has no tensor {name!r}: not a llama of Orchestra"
            )
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return numpy_helper.to_array(tensor)
        start = next(int(entry.value) for entry in tensor.external_data if entry.key == "offset")
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        count = math.prod(tensor.dims)
        return np.frombuffer(self._data, kind, count, start).reshape(tuple(tensor.dims))

    def forget_pages(self) -> None:
        """Return the memory of what was read; it is read from the file again when it is needed."""
        self._data.madvise(mmap.MADV_DONTNEED)

    def _attribute(self, node: str, name: str) -> Any:
        for attribute in self._nodes[node].attribute if node in self._nodes else ():
            if attribute.name == name:
                return onnx.helper.get_attribute_value(attribute)
        raise BackendFailed(
            f"the graph in {str(self._folder)!r} has no {name!r} of {node!r}: not a llama of Orchestra"
        )


def values(matrix: Matrix) -> Floats:
    """The matrix in float32, [rows, columns]."""
    return matrix.values() if isinstance(matrix, BlockWeights) else matrix
