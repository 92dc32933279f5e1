"""Limits the memory of the bodies of all HTTP requests in flight."""

from __future__ import annotations

import asyncio

from actors.gateway.errors import BodyMemoryExhausted
from actors.gateway.metrics import REFUSED
from actors.telemetry.memory import release_memory

FREE_BYTES = 16 * 1024
"""Bytes of each body that are not counted, so that large bodies do not lock out small ones."""
TRIM_BYTES = 32 * 2**20
"""Memory is returned to the system after bodies have used more than this many bytes."""
TRIM_AFTER_S = 0.5


class BodyMemory:
    """Counts the bytes of each body beyond `FREE_BYTES`, from their arrival until the request is answered."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._peak_bytes = 0
        """The maximum of `held_bytes` since memory was last returned."""

    def grow(self, before: int, size: int) -> None:
        """A body grew from `before` bytes to `size`. Raises `BodyMemoryExhausted`."""
        more = max(0, size - FREE_BYTES) - max(0, before - FREE_BYTES)
        if more and self.held_bytes + more > self.limit_bytes:
            REFUSED.labels("max_bodies_bytes").inc()
            raise BodyMemoryExhausted(
                f"limit reached: bodies of other requests use {self.held_bytes} of {self.limit_bytes} bytes "
                "(max_bodies_bytes): retry later, or send a shorter body",
                retry_after_s=1,
            )
        self.held_bytes += more
        self._peak_bytes = max(self._peak_bytes, self.held_bytes)

    def free(self, size: int) -> None:
        """Release a body of `size` bytes."""
        self.held_bytes -= max(0, size - FREE_BYTES)
        if self._peak_bytes > TRIM_BYTES and self.held_bytes < TRIM_BYTES // 8:
            self._peak_bytes = 0
            # Later: the bytes themselves are freed after this call.
            asyncio.get_running_loop().call_later(TRIM_AFTER_S, release_memory)
