"""Products with the matrices of a model, in the form that the device is fastest with."""

from __future__ import annotations

import torch
import torch.nn.functional as F

Tensor = torch.Tensor

_ROWS = 16
"""For how many rows oneDNN lays a matrix out; that form is the fastest for fewer and for more as well."""


class Linear:
    """`x @ weight.T` for a weight [rows, columns], which must not change.

    In float32 on a CPU the matrix is laid out anew for oneDNN, once, where this torch can do it. That takes
    half the time of the usual product from 2 to 16 rows (SmolLM2 on two cores of an EPYC: 40 ms a step of 4
    rows against 91), and there a row's numbers do not depend, to the bit, on how many rows there are.
    """

    def __init__(self, weight: Tensor) -> None:
        self.packed = (
            weight.device.type == "cpu"
            and weight.dtype == torch.float32
            and hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
            and hasattr(torch.ops.mkldnn, "_linear_pointwise")
        )
        """Whether the matrix is laid out anew."""
        self._weight: Tensor = (
            torch.ops.mkldnn._reorder_linear_weight(weight, _ROWS) if self.packed else weight
        )

    def __call__(self, x: Tensor) -> Tensor:
        if not self.packed:
            return F.linear(x, self._weight)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, None, "none", [], "")
        return product
