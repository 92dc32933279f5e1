"""Asks who reads a stream how far it has come, so that another can go on with it or race its writer."""

from __future__ import annotations

import asyncio
import logging

from pydantic import ValidationError

from actors.bus.bus import Bus, Message
from actors.bus.subjects import StreamAddress
from orchestration.errors import InternalError, NoResponders, OrchestraError
from orchestration.messages import HandoffRequest, StreamPosition

log = logging.getLogger(__name__)

PEEK_TIMEOUT_S = 1.0
HANDOFF_TIMEOUT_S = 5.0
"""An asker answers within a millisecond; one that is silent for so long is not there."""
MAX_READER_TRIES = 20
"""Times that nobody may listen, `PAUSE_S` apart, before the asker is taken for gone: after a restart of NATS
it may need a moment longer to be back than who asks it."""
PAUSE_S = 0.1


async def stream_position(
    bus: Bus, stream_id: str, *, quiet_s: float = 0.0, attempt: int = 0
) -> StreamPosition:
    """What was read of the stream of that id, whose next writer is named there.

    `attempt` is the delivery of the work that asks: it is `superseded` where a later one has taken it up.
    With `quiet_s` above 0 a writer heard of within so many seconds is left alone. A stream that nobody
    reads any more is not `open`. Raises `DeadlineExceeded` when the asker does not answer, `InternalError`
    when its answer cannot be read (it is of another version), `BusUnavailable` when NATS is away.
    """
    body = HandoffRequest(quiet_s=quiet_s, attempt=attempt).model_dump_json().encode()
    for _ in range(MAX_READER_TRIES):
        try:
            reply = await bus.request(StreamAddress(stream_id).handoff, body, timeout=HANDOFF_TIMEOUT_S)
        except NoResponders:
            await asyncio.sleep(PAUSE_S)
            continue
        return _read(reply)
    return StreamPosition(open=False)


async def peek(bus: Bus, stream_id: str, within_s: float) -> StreamPosition | None:
    """Whether the reader of the stream of that id has heard of its writer within so many seconds (`alive`),
    and how many events it has read of it (`seq`). None where nobody can say so."""
    body = HandoffRequest(quiet_s=within_s, peek=True).model_dump_json().encode()
    try:
        return _read(await bus.request(StreamAddress(stream_id).handoff, body, timeout=PEEK_TIMEOUT_S))
    except OrchestraError as error:
        log.debug("the reader of %s cannot say whether it has heard of it: %s", stream_id, error)
        return None


async def is_superseded(bus: Bus, stream_id: str, attempt: int) -> bool:
    """Whether a later delivery of the work than `attempt` has been taken up. False where nobody can say."""
    body = HandoffRequest(attempt=attempt, peek=True).model_dump_json().encode()
    try:
        return _read(
            await bus.request(StreamAddress(stream_id).handoff, body, timeout=PEEK_TIMEOUT_S)
        ).superseded
    except OrchestraError as error:
        log.debug("the reader of %s cannot say who has it: %s", stream_id, error)
        return False


async def may_race(bus: Bus, stream_id: str, tell: str) -> StreamPosition:
    """Asks for a second writer's name, so that it may begin the stream too. The answer is `alive` if some of
    the stream was read already. The reader publishes to `tell` which of the two writers was first. Raises
    what `stream_position` raises.
    """
    body = HandoffRequest(tell=tell).model_dump_json().encode()
    reply = await bus.request(StreamAddress(stream_id).handoff, body, timeout=HANDOFF_TIMEOUT_S)
    return _read(reply)


def _read(reply: Message) -> StreamPosition:
    try:
        return StreamPosition.model_validate_json(reply.data)
    except ValidationError as error:
        raise InternalError(
            "what its reader says of the stream cannot be read; is it of another version?"
        ) from error
