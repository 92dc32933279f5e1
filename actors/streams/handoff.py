"""Asks the reader of a stream for its position, so that another writer can continue it or race the first."""

from __future__ import annotations

import asyncio
import logging

from pydantic import ValidationError

from actors.bus.bus import Bus
from actors.bus.subjects import StreamAddress
from orchestration.errors import InternalError, NoResponders, OrchestraError
from orchestration.messages import HandoffRequest, StreamPosition

log = logging.getLogger(__name__)

PEEK_TIMEOUT_S = 1.0
HANDOFF_TIMEOUT_S = 5.0
"""How long to wait for the reader's answer, which takes a millisecond."""
MAX_READER_TRIES = 20
"""Requests without a subscriber, `PAUSE_S` apart, before the reader counts as gone. After a restart of NATS
it may reconnect a moment later than the process that asks."""
PAUSE_S = 0.1


async def stream_position(
    bus: Bus, stream_id: str, *, quiet_s: float = 0.0, attempt: int = 0
) -> StreamPosition:
    """Take the stream over: the reader's position, with the name of the next writer.

    `attempt` is the delivery number of the work: the answer is `superseded` if a later one has been taken up.
    With `quiet_s` above 0, a writer that sent something within so many seconds keeps the stream. The answer
    is not `open` if the stream has no reader. Raises `DeadlineExceeded` when the reader does not answer,
    `InternalError` when its answer cannot be decoded (the reader is of another version), and
    `BusUnavailable`.
    """
    body = HandoffRequest(quiet_s=quiet_s, attempt=attempt).model_dump_json().encode()
    for _ in range(MAX_READER_TRIES):
        try:
            return await _ask(bus, stream_id, body, HANDOFF_TIMEOUT_S)
        except NoResponders:
            await asyncio.sleep(PAUSE_S)
    return StreamPosition(open=False)


async def peek(bus: Bus, stream_id: str, quiet_s: float) -> StreamPosition | None:
    """Whether the writer has sent something within `quiet_s` seconds (`alive`), and the number of its events
    (`events`). None if the reader does not answer."""
    body = HandoffRequest(quiet_s=quiet_s, peek=True).model_dump_json().encode()
    try:
        return await _ask(bus, stream_id, body, PEEK_TIMEOUT_S)
    except OrchestraError as error:
        log.debug("the reader of stream %s did not report its writer: %s", stream_id, error)
        return None


async def is_superseded(bus: Bus, stream_id: str, attempt: int) -> bool:
    """Whether a delivery of the work later than `attempt` has been taken up. False if the reader does not
    answer."""
    body = HandoffRequest(attempt=attempt, peek=True).model_dump_json().encode()
    try:
        return (await _ask(bus, stream_id, body, PEEK_TIMEOUT_S)).superseded
    except OrchestraError as error:
        log.debug("the reader of stream %s did not report its delivery: %s", stream_id, error)
        return False


async def request_race(bus: Bus, stream_id: str, winner_subject: str) -> StreamPosition:
    """Register a second writer, whose name is in the answer; `alive` if some of the stream was read already.

    The reader publishes on `winner_subject` which of the two writers was first. Raises what `stream_position`
    raises, and `NoResponders`.
    """
    body = HandoffRequest(winner_subject=winner_subject).model_dump_json().encode()
    return await _ask(bus, stream_id, body, HANDOFF_TIMEOUT_S)


async def _ask(bus: Bus, stream_id: str, body: bytes, timeout_s: float) -> StreamPosition:
    reply = await bus.request(StreamAddress(stream_id).handoff, body, timeout=timeout_s)
    try:
        return StreamPosition.model_validate_json(reply.data)
    except ValidationError as error:
        raise InternalError(
            f"the position of stream {stream_id} cannot be decoded; is its reader of another version?"
        ) from error
