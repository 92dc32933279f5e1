"""Reads GGUF files strictly: every length is checked against the file size.

`gguf.GGUFReader` makes a numpy view of every metadata item (2 s for a vocabulary of 50,000) and loops as
often as an array's length says, regardless of the file's size; an importer of untrusted files needs neither.
Format: the GGUF specification, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from numpy.typing import NDArray

from actors.models.errors import CorruptModel, UnsupportedModel

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MAX_DIMENSIONS = 4
_MAX_ALIGNMENT = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTensor:
    """One tensor: `shape` in numpy's order (rows first), `data` its raw bytes, [rows, bytes per row]."""

    name: str
    type: GGMLQuantizationType
    shape: tuple[int, ...]
    data: NDArray[np.uint8]


class GgufFile:
    """An open GGUF file. `tensors` are views of the mapped file, valid until `close`.

    Raises `CorruptModel` for a file that is truncated or not GGUF, `UnsupportedModel` for an unknown version
    or tensor type, and OSError if the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as stream:
            self.size = path.stat().st_size
            if self.size < 24:
                raise CorruptModel(f"{path.name} is not a GGUF file: only {self.size} bytes long")
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self._bytes: NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)
        self._at = 0
        try:
            self.metadata, self.tensors = self._parse()
        except (UnicodeDecodeError, ValueError, struct.error) as error:
            raise CorruptModel(f"{path.name} is a damaged GGUF file: {error}") from error

    def close(self) -> None:
        """Drop the tensors; the file stays mapped until the last view is gone."""
        self.tensors = {}
        self._bytes = np.empty(0, np.uint8)

    def __enter__(self) -> GgufFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _parse(self) -> tuple[dict[str, Any], dict[str, GgufTensor]]:
        if self._map[:4] != b"GGUF":
            raise CorruptModel(f"{self.path.name} is not a GGUF file: it starts with {self._map[:4]!r}")
        self._at = 4
        version = self._scalar("I")
        if version not in (2, 3):
            raise UnsupportedModel(f"{self.path.name} is GGUF version {version}; versions 2 and 3 are read")
        count, pairs = self._scalar("Q"), self._scalar("Q")
        metadata: dict[str, Any] = {}
        for _ in range(self._checked(pairs, 13, "metadata items")):
            key = self._string()
            metadata[key] = self._value(self._scalar("I"))
        infos = [self._tensor_info() for _ in range(self._checked(count, 24, "tensors"))]
        alignment = metadata.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= _MAX_ALIGNMENT:
            raise CorruptModel(f"{self.path.name} is damaged: alignment {alignment!r}")
        start = -(-self._at // alignment) * alignment
        tensors = {name: self._tensor(name, kind, dims, start + at) for name, kind, dims, at in infos}
        if len(tensors) != len(infos):
            raise CorruptModel(f"{self.path.name} is damaged: it names a tensor twice")
        return metadata, tensors

    def _checked(self, count: int, min_bytes: int, what: str) -> int:
        if count * min_bytes > self.size - self._at:
            raise CorruptModel(f"{self.path.name} is truncated: {count} {what} do not fit {self.size} bytes")
        return count

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > self.size:
            raise CorruptModel(
                f"{self.path.name} is truncated: it ends at {self.size} bytes, before its data"
            )
        taken = self._map[self._at : end]
        self._at = end
        return taken

    def _scalar(self, code: str) -> Any:
        return struct.unpack("<" + code, self._take(struct.calcsize("<" + code)))[0]

    def _string(self) -> str:
        return self._take(self._scalar("Q")).decode()

    def _value(self, kind: int, depth: int = 0) -> Any:
        if kind == _STRING:
            return self._string()
        if code := _SCALARS.get(kind):
            return self._scalar(code)
        if kind != _ARRAY or depth > 1:
            raise CorruptModel(f"{self.path.name} is damaged: metadata of type {kind}")
        inner, length = self._scalar("I"), self._scalar("Q")
        if code := _SCALARS.get(inner):
            size = struct.calcsize("<" + code)
            return list(
                struct.unpack(f"<{self._checked(length, size, 'values')}{code}", self._take(length * size))
            )
        return [self._value(inner, depth + 1) for _ in range(self._checked(length, 8, "values"))]

    def _tensor_info(self) -> tuple[str, int, tuple[int, ...], int]:
        name, dimensions = self._string(), self._scalar("I")
        if not 0 < dimensions <= _MAX_DIMENSIONS:
            raise CorruptModel(f"{self.path.name} is damaged: tensor {name!r} has {dimensions} dimensions")
        dims = tuple(self._scalar("Q") for _ in range(dimensions))
        return name, self._scalar("I"), dims[::-1], self._scalar("Q")

    def _tensor(self, name: str, kind: int, shape: tuple[int, ...], start: int) -> GgufTensor:
        try:
            known = GGMLQuantizationType(kind)
        except ValueError as error:
            raise UnsupportedModel(f"tensor {name!r} has the unknown GGML type {kind}") from error
        block, block_bytes = GGML_QUANT_SIZES[known]
        if shape[-1] % block or 0 in shape:
            raise CorruptModel(
                f"{self.path.name} is damaged: tensor {name!r} of {known.name} has shape {shape}"
            )
        row_bytes = shape[-1] // block * block_bytes
        rows = prod(shape[:-1])
        end = start + rows * row_bytes
        if end > self.size:
            raise CorruptModel(
                f"{self.path.name} is truncated: tensor {name!r} ends at byte {end}, the file at {self.size}"
            )
        data = self._bytes[start:end].reshape(rows, row_bytes)
        return GgufTensor(name=name, type=known, shape=shape, data=data)
