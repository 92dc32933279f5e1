"""The memory of a process."""

from __future__ import annotations

import ctypes
import sys


def release_memory() -> None:
    """Make glibc return freed memory to the system. Does nothing with other C libraries."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
