"""Reads what a stream holds, newest first, a bounded page at a time."""

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
"""Sequences looked at in one request."""
AHEAD = 100
"""Sequences beyond the last: what changes while it is looked for is written anew there."""
MAX_WINDOWS = 40
"""Per page: a stream with larger gaps ends its page early, with a cursor to go on from."""
TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """One message of a stream."""

    sequence: int
    message: Message

    @property
    def subject(self) -> str:
        return self.message.header("Nats-Subject")


def _all(message: Message) -> bool:
    return True


async def latest_messages(
    bus: Bus, stream: str, *, limit: int, before: int = 0, wanted: Callable[[Message], bool] = _all
) -> tuple[list[StoredMessage], int]:
    """Up to `limit` messages of a stream that are `wanted`, newest first, those before the sequence `before`
    where it is not 0; and the `before` of the next page, 0 when there is none. Delete markers of a bucket
    are left out.

    Raises `BusUnavailable` when the stream is not there.
    """
    state = await stream_state(bus, stream)
    first, last = int(state.get("first_seq", 1)), int(state.get("last_seq", 0))
    end = min(before, last + 1) if before > 0 else last + 1 + AHEAD
    found: list[StoredMessage] = []
    for _ in range(MAX_WINDOWS):
        if end <= first or len(found) >= limit:
            break
        start = max(first, end - WINDOW)
        window = await _window(bus, stream, start, end)
        found += [
            each for each in reversed(window) if not each.message.header(OPERATION) and wanted(each.message)
        ]
        end = start
    if len(found) > limit:
        found = found[:limit]
        end = found[-1].sequence
    return found, end if end > first else 0


async def stream_state(bus: Bus, stream: str, subjects: str = "") -> dict[str, Any]:
    """JetStream's `state` of a stream, with the number of messages of each subject that matches `subjects`.

    Raises `BusUnavailable` when it is not there.
    """
    wanted = json.dumps({"subjects_filter": subjects}).encode() if subjects else b""
    try:
        info = json.loads((await bus.request(f"$JS.API.STREAM.INFO.{stream}", wanted)).data)
    except NoResponders as error:
        raise BusUnavailable("this NATS server has no JetStream") from error
    if "error" in info:
        raise BusUnavailable(f"stream {stream}: {info['error'].get('description', 'not there')}")
    state: dict[str, Any] = info["state"]
    return state


async def message_at(bus: Bus, stream: str, sequence: int) -> StoredMessage | None:
    """The message of that sequence, None when it is not there."""
    body = json.dumps({"seq": sequence}).encode()
    try:
        message = await bus.request(f"$JS.API.DIRECT.GET.{stream}", body)
    except NoResponders as error:
        raise BusUnavailable(f"stream {stream} is not there; was it declared?") from error
    return None if message.status else StoredMessage(sequence, message)


async def _window(bus: Bus, stream: str, start: int, end: int) -> list[StoredMessage]:
    """Messages with sequences from `start` up to, not including, `end`: one request, many replies."""
    done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    found: list[StoredMessage] = []

    def arrived(message: Message) -> None:
        if done.done():
            return
        if message.status:  # 204 the end of the batch, 404 nothing there, 503 nobody answers
            if message.status == "503":
                done.set_exception(BusUnavailable(f"stream {stream} is not there; was it declared?"))
            else:
                done.set_result(None)
            return
        sequence = int(message.header(SEQUENCE, "0"))
        if sequence < end:
            found.append(StoredMessage(sequence, message))

    reply = bus.expect(arrived)
    body = json.dumps({"seq": start, "next_by_subj": ">", "batch": end - start}).encode()
    try:
        async with asyncio.timeout(TIMEOUT_S):
            await bus.publish(f"$JS.API.DIRECT.GET.{stream}", body, reply=reply)
            await done
    except TimeoutError as error:
        raise DeadlineExceeded(f"stream {stream} did not answer within {TIMEOUT_S:g} s") from error
    finally:
        bus.forget(reply)
    return found
