"""A safetensors file, its tensors as views of the mapped file.

Format: huggingface/safetensors README: 8 bytes of header length, JSON header, data.
"""

from __future__ import annotations

import json
import struct
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from actors.models.errors import CorruptModel, UnsupportedModel

_MAX_HEADER_BYTES = 100_000_000
_DTYPES = {"F32": np.float32, "F16": np.float16}


def read_safetensors(path: Path) -> dict[str, NDArray[np.float32]]:
    """Every float tensor of `path` by name, in float32. Integer tensors are left out.

    Raises `CorruptModel`, and `UnsupportedModel` for other kinds of float.
    """
    size = path.stat().st_size
    if size < 8:
        raise CorruptModel(f"{path.name} is not a safetensors file: only {size} bytes long")
    mapped = np.memmap(path, np.uint8, "r")
    (length,) = struct.unpack("<Q", mapped[:8].tobytes())
    if length > min(size - 8, _MAX_HEADER_BYTES):
        raise CorruptModel(f"{path.name} is not a safetensors file, or truncated")
    try:
        header = json.loads(mapped[8 : 8 + length].tobytes())
        data = mapped[8 + length :]
        return {
            name: _tensor(path, name, entry, data)
            for name, entry in header.items()
            if name != "__metadata__" and not entry["dtype"].startswith(("I", "U", "BOOL"))
        }
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptModel(f"{path.name} is a damaged safetensors file: {error}") from error


def _tensor(path: Path, name: str, entry: dict[str, object], data: NDArray[np.uint8]) -> NDArray[np.float32]:
    kind, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    dtype = _DTYPES.get(str(kind))
    if dtype is None:
        raise UnsupportedModel(f"tensor {name!r} of type {kind} is not supported; F32 and F16 are")
    if not isinstance(shape, list) or not isinstance(offsets, list):
        raise CorruptModel(f"{path.name} is damaged: tensor {name!r} has no shape or place")
    start, end = offsets
    if not 0 <= start <= end <= len(data) or end - start != prod(shape) * np.dtype(dtype).itemsize:
        raise CorruptModel(f"{path.name} is truncated or damaged at tensor {name!r}")
    return data[start:end].view(dtype).astype(np.float32, copy=False).reshape(shape)
