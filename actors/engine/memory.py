"""Memory that becomes resident page by page."""

from __future__ import annotations

import math
import mmap

import numpy as np
from numpy.typing import NDArray


class LazyArray:
    """A zeroed float32 array in an anonymous mapping.

    Only written pages take memory, so a cache can reserve the maximum context in every row. Transparent huge
    pages are disabled: one would make 2 MB resident at the first write of 256 bytes.
    """

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.bytes = max(4 * math.prod(shape), mmap.PAGESIZE)
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0)
        self._map = mmap.mmap(-1, self.bytes, flags=flags)
        if hasattr(mmap, "MADV_NOHUGEPAGE"):
            self._map.madvise(mmap.MADV_NOHUGEPAGE)
        self.array: NDArray[np.float32] = np.frombuffer(
            self._map, dtype=np.float32, count=math.prod(shape)
        ).reshape(shape)

    def drop(self, start: int, size: int) -> None:
        """Free the whole pages within the `size` bytes from byte `start`; they read as zeros."""
        first = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE
        length = (start + size) // mmap.PAGESIZE * mmap.PAGESIZE - first
        if length > 0:
            self._map.madvise(mmap.MADV_DONTNEED, first, length)
