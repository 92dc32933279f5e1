"""Cached responses: in this process, and in a bucket that all gateways share."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence

from pydantic import TypeAdapter, ValidationError

from actors.bus.bus import Bus
from actors.bus.key_value import Bucket
from actors.gateway.admission_settings import CacheSettings
from actors.gateway.metrics import CACHE_BYTES, CACHE_ENTRIES, CACHE_EVICTED
from orchestration.errors import OrchestraError
from orchestration.messages import (
    JoinedText,
    RunEnd,
    StreamEnd,
    StreamEvent,
    TextDelta,
    Vectors,
    Wire,
)
from orchestration.response_cache import LruCache

log = logging.getLogger(__name__)

BUCKET = "response_cache"
LOOKUP_TIMEOUT_S = 0.25
"""Timeout of a look-up in the shared bucket; after it the model answers."""

_EVENTS: TypeAdapter[tuple[StreamEvent, ...]] = TypeAdapter(tuple[StreamEvent, ...])


class CachedResponse(Wire):
    """One entry of the bucket. Times are Unix seconds."""

    stored_at: float
    expires_at: float
    events: tuple[StreamEvent, ...]


class ResponseCache:
    """Look up `local`, then `shared`; `store` writes to both. An error counts as a miss."""

    def __init__(self, bus: Bus, settings: CacheSettings) -> None:
        self.bus = bus
        self.settings = settings
        self.bucket = Bucket(bus, BUCKET)
        self.cache = LruCache(max_entries=settings.max_entries, max_bytes=settings.max_bytes)

    def update_settings(self, settings: CacheSettings) -> None:
        """Take other settings; evict what does not fit any more."""
        self.settings = settings
        evicted = self.cache.evicted
        self.cache.resize(max_entries=settings.max_entries, max_bytes=settings.max_bytes)
        self._count(evicted)

    def local(self, key: str, max_age_s: float | None) -> tuple[StreamEvent, ...] | None:
        """Return the events of a response that this process has cached."""
        found = self.cache.get(key, time.monotonic(), max_age_s=max_age_s)
        return None if found is None else _EVENTS.validate_json(found)

    async def shared(self, key: str, max_age_s: float | None) -> tuple[StreamEvent, ...] | None:
        """Return the events of a response from the bucket, which any gateway may have stored."""
        if not self.settings.shared:
            return None
        try:
            async with asyncio.timeout(LOOKUP_TIMEOUT_S):
                entry = await self.bucket.get(key)
            record = None if entry is None else CachedResponse.model_validate_json(entry.value or b"")
        except (OrchestraError, TimeoutError, ValidationError) as error:
            log.debug("cannot look into the bucket %s: %s", BUCKET, error)
            return None
        now = time.time()
        if record is None or now >= record.expires_at:
            return None
        age_s = max(0.0, now - record.stored_at)
        if max_age_s is not None and age_s >= max_age_s:
            return None
        self._put(key, _EVENTS.dump_json(record.events), age_s, record.expires_at - record.stored_at)
        return record.events

    def store(self, key: str, events: Sequence[StreamEvent], ttl_s: float) -> None:
        """Store a complete response, if it is cacheable."""
        cacheable = cacheable_events(events)
        if cacheable is None:
            return
        value = _EVENTS.dump_json(cacheable)
        if len(value) > self.settings.max_answer_bytes:
            return
        self._put(key, value, 0.0, ttl_s)
        if self.settings.shared:
            now = time.time()
            record = CachedResponse(stored_at=now, expires_at=now + ttl_s, events=cacheable)
            try:  # without waiting: the client has its response already
                self.bus.post(self.bucket.subject(key), record.model_dump_json().encode())
            except OrchestraError as error:
                log.debug("a response was not stored in the bucket: %s", error)

    def clear(self) -> None:
        """Forget the responses that this process has cached."""
        self.cache.clear()
        CACHE_ENTRIES.set(0)
        CACHE_BYTES.set(0)

    def _put(self, key: str, value: bytes, age_s: float, ttl_s: float) -> None:
        evicted = self.cache.evicted
        self.cache.put(key, value, time.monotonic() - age_s, ttl_s)
        self._count(evicted)

    def _count(self, evicted: int) -> None:
        CACHE_EVICTED.inc(self.cache.evicted - evicted)
        CACHE_ENTRIES.set(len(self.cache))
        CACHE_BYTES.set(self.cache.size)


def cacheable_events(events: Sequence[StreamEvent]) -> tuple[StreamEvent, ...] | None:
    """Return the response as few events, or None if it must not be cached.

    Text deltas are joined: their boundaries only show how fast the model was. Replaced text and progress are
    dropped. A response that ended early for an outside reason, and a run with a failed step, are not cached:
    asking again may give a better one.
    """
    joined = JoinedText()
    found: list[StreamEvent] = []
    for event in events:
        if isinstance(event, TextDelta):
            joined.add(event)
        elif isinstance(event, Vectors):
            found.append(event)
        elif isinstance(event, StreamEnd):
            failed = event.error is not None or _has_failed_step(event)
            if failed or event.finish.reason not in ("stop", "length", "tool_calls"):
                return None
            if joined:
                found.append(joined.delta)
            found.append(event.model_copy(update={"trace_id": ""}))
            return tuple(found)
    return None


def _has_failed_step(end: StreamEnd) -> bool:
    return isinstance(end, RunEnd) and any(step.error is not None for step in end.steps)
