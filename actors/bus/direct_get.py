"""Reads stored messages of a stream by sequence, time or subject, without a consumer (JetStream's ADR-31)."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from actors.bus.bus import Bus, Message
from orchestration.errors import BusUnavailable, DeadlineExceeded, Unavailable

TIMEOUT_S = 15.0
"""Time in which the server must begin, or go on, to answer."""
MAX_BATCH = 1_000
"""Maximum messages of one request; the server refuses more than 1,024 subjects."""


class TooManyResults(Unavailable):
    """More subjects match than the server lists at once."""

    retryable = False


@dataclass(frozen=True, slots=True)
class DirectMessage:
    """A message as the stream stores it."""

    sequence: int
    subject: str
    data: bytes


@dataclass(frozen=True, slots=True)
class StoredPage:
    """Messages in their order, and the number of further ones that match."""

    messages: list[DirectMessage]
    more: int


async def get_batch(bus: Bus, stream: str, request: dict[str, Any]) -> StoredPage:
    """The answer to a request of ADR-31, which names `batch` or `multi_last`.

    Raises `TooManyResults`, `BusUnavailable`, and `DeadlineExceeded` when the server stops answering.
    """
    messages: list[DirectMessage] = []
    loop = asyncio.get_running_loop()
    end: asyncio.Future[Message] = loop.create_future()
    heard = loop.time()

    def on_reply(message: Message) -> None:
        nonlocal heard
        heard = loop.time()
        if message.header("Nats-Sequence"):
            sequence = int(message.header("Nats-Sequence"))
            messages.append(DirectMessage(sequence, message.header("Nats-Subject"), message.data))
        elif not end.done():
            end.set_result(message)

    reply = bus.expect(on_reply)
    try:
        await bus.publish(f"$JS.API.DIRECT.GET.{stream}", json.dumps(request).encode(), reply=reply)
        while not end.done():
            left = heard + TIMEOUT_S - loop.time()
            if left <= 0 or not bus.connected:
                raise DeadlineExceeded(f"stream {stream} did not answer within {TIMEOUT_S:g} s")
            await asyncio.wait({end}, timeout=min(left, 1.0))
    finally:
        bus.forget(reply)
    return _page(stream, end.result(), messages)


def _page(stream: str, last: Message, messages: list[DirectMessage]) -> StoredPage:
    if last.status == "503":
        raise BusUnavailable(f"stream {stream} does not exist, or has no leader")
    if last.status == "413":
        raise TooManyResults(f"more subjects of stream {stream} match than the server lists at once")
    if last.status not in ("204", "404"):
        raise BusUnavailable(f"stream {stream} answered {last.status} {last.header('Description')}")
    pending = last.header("Nats-Num-Pending")
    return StoredPage(messages, int(pending) if pending.isdigit() else 0)
