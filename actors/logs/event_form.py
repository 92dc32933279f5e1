"""The form of an event in the stream: JSON of a bounded size, and its subject."""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from zlib import crc32

from pydantic import TypeAdapter
from pydantic_core import PydanticSerializationError

from actors.bus.subjects import LogSubject
from orchestration.log_events import LogEvent

OVERHEAD_BYTES = 400
"""About the size of an event without its texts."""
CUT = "… [cut: {kept} of {all} characters]"
MAX_FIELDS = 64
"""Maximum number of facts in `data`."""
_EVENTS = TypeAdapter(LogEvent)


def estimated_bytes(event: LogEvent) -> int:
    """About the size of an event, without encoding it."""
    size = OVERHEAD_BYTES + len(event.message)
    for value in event.data.values():
        size += len(value) if isinstance(value, str) else 16
    return size


def cut_text(text: str, limit: int) -> str:
    """The text, or its beginning and a note of how much is missing."""
    return text if len(text) <= limit else text[:limit] + CUT.format(kept=limit, all=len(text))


def cut_event(event: LogEvent, max_bytes: int) -> LogEvent:
    """The event with long texts cut, so that it has about `max_bytes` at most."""
    limit = max_bytes // 4
    data: dict[str, Any] = {}
    left = limit
    for name, value in list(event.data.items())[:MAX_FIELDS]:
        kept = cut_text(value, left) if isinstance(value, str) else value
        left = max(0, left - (len(kept) if isinstance(kept, str) else 16))
        data[name] = kept
    return event.model_copy(update={"message": cut_text(event.message, limit), "data": data | {"cut": True}})


def encoded_event(event: LogEvent, max_bytes: int) -> bytes:
    """The JSON of an event, of `max_bytes` at most. Raises ValueError for what JSON cannot say."""
    try:
        encoded = _json(event)
        if len(encoded) <= max_bytes:
            return encoded
        encoded = _json(cut_event(event, max_bytes))
        if len(encoded) <= max_bytes:
            return encoded
        return _json(
            event.model_copy(update={"message": cut_text(event.message, 500), "data": {"cut": True}})
        )
    except (PydanticSerializationError, UnicodeError, RecursionError) as error:
        raise ValueError(f"event {event.name} cannot be encoded: {error}") from error


def _json(event: LogEvent) -> bytes:
    return _EVENTS.serializer.to_json(event, exclude_defaults=True, fallback=str)


def subject_of(event: LogEvent) -> str:
    """The subject in the stream `LOGS`. Events of one run come together, and find its part of the subject."""
    kind = event.name.partition(".")[0]
    mark = crc32(event.id.encode(errors="replace"))
    return f"logs.{_head(event.level, kind, event.caller)}.{_story(event.run, event.trace)}.{mark:x}"


@lru_cache(maxsize=1024)
def _head(level: str, kind: str, caller: str) -> str:
    return LogSubject(level=level, kind=kind, caller=caller).head


@lru_cache(maxsize=1024)
def _story(run: str, trace: str) -> str:
    return LogSubject(run=run, trace=trace).story
