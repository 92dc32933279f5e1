"""Writes an ONNX graph node by node; weights are streamed into one external file."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from actors.models.weights import BlockWeights, Matrix

GRAPH = "model.onnx"
DATA = "model.onnx.data"

_ALIGNMENT = 4096
"""Alignment of tensors in the data file, from which the runtime maps large ones."""
_INLINE_BYTES = 1024
_SUMS_BY_PRODUCT = 2048
"""Columns up to which a product with ones and zeros is quicker than Reshape and ReduceSum (by 4 % of a
step of 8 rows of SmolLM2); its work grows with the square of the columns."""

_OPSETS = (("", 21), ("com.microsoft", 1))
_IR = 10

MICROSOFT = "com.microsoft"

FLOAT32, INT8 = 1, 4
"""Accuracy levels of `MatMulNBits`: the type that it computes with."""


class GraphWriter:
    """Builds `model.onnx` and `model.onnx.data` in `folder`; holds at most one tensor in memory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._data = (folder / DATA).open("wb")
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}
        self._inputs: list[onnx.ValueInfoProto] = []
        self._outputs: list[onnx.ValueInfoProto] = []
        self._named: set[str] = set()

    def __enter__(self) -> GraphWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._data.close()

    def input(self, name: str, kind: int, shape: list[int | str]) -> str:
        """Declare an input of ONNX type `kind`; strings in `shape` are free dimensions."""
        self._inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, kind: int, shape: list[int | str]) -> None:
        self._outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def node(self, op: str, inputs: list[str], output: str, *, domain: str = "", **attributes: Any) -> str:
        """Add a node with one output, and return its name."""
        return self.nodes(op, inputs, [output], domain=domain, **attributes)[0]

    def nodes(
        self, op: str, inputs: list[str], outputs: list[str], *, domain: str = "", **attributes: Any
    ) -> list[str]:
        """Add a node with several outputs; an empty name omits one."""
        name = next(output for output in outputs if output)
        self._named.update(outputs)
        self._nodes.append(helper.make_node(op, inputs, outputs, name=name, domain=domain, **attributes))
        return outputs

    def tensor(self, name: str, values: NDArray[Any]) -> str:
        """Add a constant; large ones go to the data file. A repeated name returns the same constant."""
        if name in self._initializers:
            return name
        values = np.ascontiguousarray(values)
        if values.nbytes <= _INLINE_BYTES:
            self._initializers[name] = onnx.numpy_helper.from_array(values, name)
            return name
        start = -(-self._data.tell() // _ALIGNMENT) * _ALIGNMENT
        self._data.seek(start)
        self._data.write(values.data)
        proto = TensorProto(name=name, dims=values.shape, data_location=TensorProto.EXTERNAL)
        proto.data_type = helper.np_dtype_to_tensor_dtype(values.dtype)
        for key, value in (("location", DATA), ("offset", str(start)), ("length", str(values.nbytes))):
            proto.external_data.add(key=key, value=value)
        self._initializers[name] = proto
        return name

    def reshaped(self, name: str, of: str, shape: tuple[int, ...]) -> str:
        """The constant `of` with another shape, on the same bytes of the data file."""
        proto = TensorProto()
        proto.CopyFrom(self._initializers[of])
        if proto.data_location != TensorProto.EXTERNAL:
            return self.tensor(name, onnx.numpy_helper.to_array(proto).reshape(shape))
        proto.name = name
        del proto.dims[:]
        proto.dims.extend(shape)
        self._initializers[name] = proto
        return name

    def linear(self, x: str, name: str, weights: Matrix, *, rank: int = 3) -> str:
        """`x @ weights^T`: x float32 [..., columns] of `rank` dimensions gives float32 [..., rows].

        Weights stay as they are, and x is not rounded: see `_product`.
        """
        if not isinstance(weights, BlockWeights):
            return self.node("MatMul", [x, self.tensor(f"{name}.weight", weights.T)], name)
        if weights.offsets is None:
            return self._product(x, name, weights, name, rank)
        product = self._product(x, name, weights, f"{name}.codes_product", rank)
        offsets = self.tensor(f"{name}.offsets", weights.offsets.T)
        shift = self.node("MatMul", [self._sums(x, weights, rank), offsets], f"{name}.shift")
        return self.node("Add", [product, shift], name)

    def _product(self, x: str, name: str, weights: BlockWeights, output: str, rank: int) -> str:
        """The product with the codes and scales of `weights`, as if x were not rounded.

        With 4 bits the runtime has a kernel in float32. With 8 bits it has only one that rounds each block
        of x to 8 bits, which moves logits by 0.1 and another way on each processor. So it multiplies two
        rows for each of x, x itself and what the rounding takes from it, and their sum is as good as
        float32 (logits move by 0.0004).
        """
        tensors = [
            self.tensor(f"{name}.codes", weights.codes),
            self.tensor(f"{name}.scales", weights.scales),
        ]
        shape = {"K": weights.columns, "N": weights.rows, "bits": weights.bits, "block_size": weights.block}
        if weights.bits == 4:
            inputs = [x, *tensors]
            return self.node("MatMulNBits", inputs, output, domain=MICROSOFT, **shape, accuracy_level=FLOAT32)
        inputs = [self._with_rest(x, weights.block, rank), *tensors]
        both = f"{output}.both"
        self.node("MatMulNBits", inputs, both, domain=MICROSOFT, **shape, accuracy_level=INT8)
        return self.node("ReduceSum", [both, self._first_axis()], output, keepdims=0)

    def _with_rest(self, x: str, block: int, rank: int) -> str:
        """x and what is left of it when its blocks are rounded to 8 bits, [2, ..., columns].

        A product with the identity rounds just as the product with the weights will, on any processor.
        """
        name = f"{x}.with_rest_{block}"
        if name in self._named:
            return name
        codes = np.full((block, 1, block), 128, np.uint8)
        codes[:, 0] += np.eye(block, dtype=np.uint8)
        identity = [
            self.tensor(f"identity_{block}.codes", codes),
            self.tensor(f"identity_{block}.scales", np.ones((block, 1), np.float32)),
        ]
        blocks = self._blocks(x, block, rank)
        shape = {"K": block, "N": block, "bits": 8, "block_size": block}
        rounded = self.node(
            "MatMulNBits",
            [blocks, *identity],
            f"{x}.rounded_{block}",
            domain=MICROSOFT,
            **shape,
            accuracy_level=INT8,
        )
        rest = self.node("Sub", [blocks, rounded], f"{x}.rest_blocks_{block}")
        whole = self.tensor(f"whole_rank_{rank}", np.array([*[0] * (rank - 1), -1], np.int64))
        rest = self.node("Reshape", [rest, whole], f"{x}.rest_{block}")
        parts = [
            self.node("Unsqueeze", [part, self._first_axis()], f"{part}.of_{block}") for part in (x, rest)
        ]
        return self.node("Concat", parts, name, axis=0)

    def _first_axis(self) -> str:
        return self.tensor("first_axis", np.array([0], np.int64))

    def _blocks(self, x: str, block: int, rank: int) -> str:
        """x as [..., columns / block, block]."""
        name = f"{x}.blocks_{block}"
        if name in self._named:
            return name
        shape = np.array([*[0] * (rank - 1), -1, block], np.int64)
        return self.node("Reshape", [x, self.tensor(f"blocks_of_{block}_rank_{rank}", shape)], name)

    def _sums(self, x: str, weights: BlockWeights, rank: int) -> str:
        """Sums of each block of columns, [..., columns / block]; all users of x share them."""
        block, columns = weights.block, weights.columns
        name = f"{x}.sums_{block}"
        if name in self._named:
            return name
        if columns <= _SUMS_BY_PRODUCT:
            blocks = np.eye(columns // block, dtype=np.float32).repeat(block, axis=0)
            self.node("MatMul", [x, self.tensor(f"sums_of_{block}_in_{columns}", blocks)], name)
        else:
            axis = self.tensor("last_axis", np.array([-1], np.int64))
            self.node("ReduceSum", [self._blocks(x, block, rank), axis], name, keepdims=0)
        return name

    def save(self, producer: str) -> None:
        """Write `model.onnx`. The data file is complete once this returns and the writer is closed."""
        used = {name for node in self._nodes for name in node.input}
        constants = [tensor for name, tensor in self._initializers.items() if name in used]
        graph = helper.make_graph(self._nodes, "model", self._inputs, self._outputs, constants)
        opsets = [helper.make_opsetid(domain, version) for domain, version in _OPSETS]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR, producer_name=producer)
        (self.folder / GRAPH).write_bytes(model.SerializeToString())
