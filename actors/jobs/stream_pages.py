"""Reads the messages of a stream, newest first, a page at a time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from actors.bus.bus import Bus, Message
from actors.bus.key_value import OPERATION, SEQUENCE
from orchestration.errors import BusUnavailable, DeadlineExceeded, NoResponders

WINDOW = 500
"""Sequences read with one request."""
AHEAD = 100
"""Sequences read beyond the last one: a key that changes meanwhile gets a new sequence there."""
MAX_WINDOWS = 40
"""Maximum requests for one page. Where a stream has large gaps, a page ends early; the next one goes on."""
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message of a stream."""

    sequence: int
    """Its number in the stream, from 1."""
    message: Message

    @property
    def subject(self) -> str:
        return self.message.header("Nats-Subject")


def _all(message: Message) -> bool:
    return True


async def latest_messages(
    bus: Bus, stream: str, *, limit: int, before: int = 0, matches: Callable[[Message], bool] = _all
) -> tuple[list[StoredMessage], int]:
    """Return up to `limit` messages that `matches` accepts, newest first, and the `before` of the next page.

    `before` is the sequence to begin below; 0 is the end of the stream, and as a result: no next page. Delete
    markers of a bucket are left out. Raises `BusUnavailable` when the stream does not exist.
    """
    state = await stream_state(bus, stream)
    first, last = int(state.get("first_seq", 1)), int(state.get("last_seq", 0))
    end = min(before, last + 1) if before > 0 else last + 1 + AHEAD
    messages: list[StoredMessage] = []
    for _ in range(MAX_WINDOWS):
        if end <= first or len(messages) >= limit:
            break
        start = max(first, end - WINDOW)
        window = await _window(bus, stream, start, end)
        messages += [
            each for each in reversed(window) if not each.message.header(OPERATION) and matches(each.message)
        ]
        end = start
    if len(messages) > limit:
        messages = messages[:limit]
        end = messages[-1].sequence
    return messages, end if end > first else 0


async def stream_state(bus: Bus, stream: str, subjects: str = "") -> dict[str, Any]:
    """JetStream's `state` of a stream, with the number of messages of each subject that matches `subjects`.

    Raises `BusUnavailable` when the stream does not exist.
    """
    options = json.dumps({"subjects_filter": subjects}).encode() if subjects else b""
    try:
        info = json.loads((await bus.request(f"$JS.API.STREAM.INFO.{stream}", options)).data)
    except NoResponders as error:
        raise BusUnavailable("this NATS server has no JetStream") from error
    if "error" in info:
        raise BusUnavailable(f"stream {stream}: {info['error'].get('description', 'not there')}")
    state: dict[str, Any] = info["state"]
    return state


async def message_at(bus: Bus, stream: str, sequence: int) -> StoredMessage | None:
    """The message with that sequence, None if there is none."""
    body = json.dumps({"seq": sequence}).encode()
    try:
        message = await bus.request(f"$JS.API.DIRECT.GET.{stream}", body)
    except NoResponders as error:
        raise BusUnavailable(f"stream {stream} does not exist") from error
    return None if message.status else StoredMessage(sequence, message)


async def _window(bus: Bus, stream: str, start: int, end: int) -> list[StoredMessage]:
    """The messages with sequences from `start` to `end`, `end` excluded: one request, many replies."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    messages: list[StoredMessage] = []

    def on_message(message: Message) -> None:
        if done.done():
            return
        if message.status:  # 204: end of the batch, 404: no message, 503: no stream
            if message.status == "503":
                done.set_exception(BusUnavailable(f"stream {stream} does not exist"))
            else:
                done.set_result(None)
            return
        sequence = int(message.header(SEQUENCE, "0"))
        if sequence < end:
            messages.append(StoredMessage(sequence, message))

    reply = bus.expect(on_message)
    body = json.dumps({"seq": start, "next_by_subj": ">", "batch": end - start}).encode()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await bus.publish(f"$JS.API.DIRECT.GET.{stream}", body, reply=reply)
            await done
    except TimeoutError as error:
        raise DeadlineExceeded(f"stream {stream} did not answer within {TIMEOUT_S:g} s") from error
    finally:
        bus.forget(reply)
    return messages
