"""The memory of a process."""

from __future__ import annotations

import ctypes
import sys


def release_memory() -> None:
    """Have the C library return freed memory to the system; glibc keeps small pieces otherwise. Elsewhere a
    no-op."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
