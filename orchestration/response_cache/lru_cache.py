"""A least-recently-used cache with expiry, and with limits on its entries and bytes."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

OVERHEAD_BYTES = 400
"""Memory of an entry without its value: the key, the record, the slot in the table (320 measured)."""


@dataclass(frozen=True, slots=True)
class _Entry:
    value: bytes
    stored_at: float
    expires_at: float

    @property
    def size(self) -> int:
        return len(self.value) + OVERHEAD_BYTES


class LruCache:
    """Evicts the least recently used entries. An expired entry is removed when it is looked up or evicted."""

    def __init__(self, *, max_entries: int, max_bytes: int) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.size = 0
        """The bytes of all entries, with their overhead."""
        self.evicted = 0
        """The number of entries evicted since the start."""
        self._entries: OrderedDict[str, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: str, now: float, *, max_age_s: float | None = None) -> bytes | None:
        """Return the value unless it is missing, expired, or at least `max_age_s` seconds old."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        if now >= entry.expires_at:
            self._drop(key)
            return None
        if max_age_s is not None and now - entry.stored_at >= max_age_s:
            return None
        self._entries.move_to_end(key)
        return entry.value

    def put(self, key: str, value: bytes, now: float, ttl_s: float) -> bool:
        """Store a value for `ttl_s` seconds. Returns False if it is too large or would expire at once."""
        entry = _Entry(value, now, now + ttl_s)
        if key in self._entries:
            self._drop(key)
        if ttl_s <= 0 or entry.size > self.max_bytes or not self.max_entries:
            return False
        self._entries[key] = entry
        self.size += entry.size
        self._evict()
        return True

    def resize(self, *, max_entries: int, max_bytes: int) -> None:
        """Change the limits, and evict what is beyond them."""
        self.max_entries, self.max_bytes = max_entries, max_bytes
        self._evict()

    def _evict(self) -> None:
        while self.size > self.max_bytes or len(self._entries) > self.max_entries:
            self._drop(next(iter(self._entries)))
            self.evicted += 1

    def clear(self) -> None:
        """Forget all entries."""
        self._entries.clear()
        self.size = 0

    def _drop(self, key: str) -> None:
        self.size -= self._entries.pop(key).size
