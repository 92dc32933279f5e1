"""Memory for the bodies of HTTP requests, all together."""

from __future__ import annotations

import asyncio

from actors.gateway.errors import BodyMemoryExhausted
from actors.gateway.metrics import REFUSED
from actors.telemetry.memory import release_memory

FREE_BYTES = 16 * 1024
"""Of each body that are not counted: clients that send much do not keep out those that send little."""
TRIM_BYTES = 32 * 2**20
"""Where so much was held since, the C library is told to give memory back once little is."""
TRIM_AFTER_S = 0.5


class BodyMemory:
    """Counts what is held of bodies beyond `FREE_BYTES` each, from its arrival until its request is
    answered."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.held_bytes = 0
        self._most = 0
        """Held at once since memory was given back."""

    def grow(self, before: int, size: int) -> None:
        """A body grew from `before` bytes to `size`. Raises `BodyMemoryExhausted`."""
        more = max(0, size - FREE_BYTES) - max(0, before - FREE_BYTES)
        if more and self.held_bytes + more > self.limit_bytes:
            REFUSED.labels("max_bodies_bytes").inc()
            raise BodyMemoryExhausted(
                f"requests at work have bodies of {self.held_bytes} bytes, and this one exceeds "
                f"max_bodies_bytes {self.limit_bytes}: ask again later, or send a shorter body",
                retry_after_s=1,
            )
        self.held_bytes += more
        self._most = max(self._most, self.held_bytes)

    def free(self, size: int) -> None:
        """A body of `size` bytes is needed no more."""
        self.held_bytes -= max(0, size - FREE_BYTES)
        if self._most > TRIM_BYTES and self.held_bytes < TRIM_BYTES // 8:
            self._most = 0
            # Later, for the bytes themselves are let go of after this.
            asyncio.get_running_loop().call_later(TRIM_AFTER_S, release_memory)
