"""Asks the reader of a stream for its position, so that another writer can continue it or race the first."""

from __future__ import annotations

import asyncio
import logging
import time

from pydantic import ValidationError

from actors.bus.bus import Bus
from actors.bus.subjects import StreamAddress
from actors.streams.reader import DEFAULT_LIMITS
from orchestration.errors import DeadlineExceeded, InternalError, NoResponders, OrchestraError
from orchestration.messages import HandoffRequest, StreamPosition

log = logging.getLogger(__name__)

PEEK_TIMEOUT_S = 1.0
HANDOFF_TIMEOUT_S = 2.0
"""How long to wait for one answer of the reader, which takes a millisecond, before it is asked again."""
READER_WAIT_S = DEFAULT_LIMITS.max_outage_s
"""How long the reader may be away before it counts as gone. After a restart of NATS it may reconnect later
than the process that asks; it keeps its streams open for as long."""
PAUSE_S = 0.1
"""Pause between two requests while nobody subscribes to them."""


async def stream_position(
    bus: Bus, stream_id: str, *, quiet_s: float = 0.0, attempt: int = 0
) -> StreamPosition:
    """Take the stream over: the reader's position, with the name of the next writer.

    `attempt` is the delivery number of the work: the answer is `superseded` if a later one has been taken up.
    With `quiet_s` above 0, a writer that sent something within so many seconds keeps the stream. The answer
    is not `open` if the stream has had no reader for `READER_WAIT_S`. Raises `DeadlineExceeded` when the
    reader has not answered for that long, `InternalError` when its answer cannot be decoded (the reader is of
    another version), and `BusUnavailable`.
    """
    body = HandoffRequest(quiet_s=quiet_s, attempt=attempt).model_dump_json().encode()
    gone_at = time.monotonic() + READER_WAIT_S
    while True:
        try:
            return await _ask(bus, stream_id, body, HANDOFF_TIMEOUT_S)
        except NoResponders:
            if time.monotonic() > gone_at:
                return StreamPosition(open=False)
            await asyncio.sleep(PAUSE_S)
        except DeadlineExceeded:  # the request or its answer was lost with a NATS server
            if time.monotonic() > gone_at:
                raise


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
