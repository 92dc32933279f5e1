"""Finds out since when the oldest message of a queue waits."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from actors.bus.bus import Bus
from actors.bus.key_value import SEQUENCE
from actors.bus.queue_depth import QueueDepth
from actors.bus.subjects import GenerationQueue
from orchestration.errors import NoResponders

TOGETHER = 16
"""Messages that are read at once."""
_TIME_STAMP, _SUBJECT = "Nats-Time-Stamp", "Nats-Subject"


@dataclass(frozen=True, slots=True)
class PartBacklog:
    """A part, and where its oldest message that was never delivered is to be found."""

    part: QueueDepth
    pending: int
    filter: str
    from_sequence: int


async def stored_times(
    bus: Bus, stream: str, group: Sequence[PartBacklog], max_ages: int
) -> dict[str, float]:
    """When the oldest message of each backlog of one priority was stored, by filter. The oldest of all is
    found in any case; beyond it up to `max_ages` backlogs are read."""
    waiting = [each for each in group if each.pending]
    if not waiting or (stream == GenerationQueue.STREAM and not waiting[0].part.priority):
        return {}  # what others put on the subjects of a queue has no age
    found: dict[str, float] = {}
    if len(waiting) > max(TOGETHER, max_ages):
        oldest = await _oldest(bus, stream, waiting)
        if oldest is not None:
            found[oldest.subject] = oldest.stored_at
            waiting = waiting[:max_ages]
    for start in range(0, len(waiting), TOGETHER):
        chunk = waiting[start : start + TOGETHER]
        messages = await asyncio.gather(
            *(_next_message(bus, stream, each.filter, each.from_sequence) for each in chunk)
        )
        found |= {
            each.filter: message.stored_at
            for each, message in zip(chunk, messages, strict=True)
            if message is not None
        }
    return found


async def _oldest(bus: Bus, stream: str, waiting: Sequence[PartBacklog]) -> _Stored | None:
    """The oldest message of a priority that was never delivered; None if many delivered ones are older."""
    undelivered = {each.filter: each.from_sequence for each in waiting}
    sequence = min(undelivered.values())
    everything = f"{waiting[0].filter.partition('.')[0]}.{waiting[0].part.priority}.>"
    for _ in range(TOGETHER):
        message = await _next_message(bus, stream, everything, sequence)
        if message is None or message.sequence >= undelivered.get(message.subject, message.sequence + 1):
            return message
        sequence = message.sequence + 1
    return None


@dataclass(frozen=True, slots=True)
class _Stored:
    subject: str
    sequence: int
    stored_at: float


async def _next_message(bus: Bus, stream: str, subjects: str, sequence: int) -> _Stored | None:
    """The first message from `sequence` on; None if there is none."""
    body = json.dumps({"seq": sequence, "next_by_subj": subjects}).encode()
    try:
        message = await bus.request(f"$JS.API.DIRECT.GET.{stream}", body)
    except NoResponders:  # the stream does not exist any more
        return None
    if message.status:
        return None
    stored_at = unix_time(message.header(_TIME_STAMP))
    return _Stored(message.header(_SUBJECT), int(message.header(SEQUENCE, "0")), stored_at)


def unix_time(text: str) -> float:
    """Unix time of a time as the server writes it, with nanoseconds."""
    return datetime.fromisoformat(text).timestamp()
