"""Moves a generation to the next node, which continues after the text that the reader has received.

A dispatcher does not subscribe to the stream: that would double its messages, and a node could no longer
see that its reader has left. So the reader is asked for the text when a generation moves. From that answer on
it ignores the previous node.
"""

from __future__ import annotations

import asyncio
import logging

from pydantic import ValidationError

from actors.bus.bus import Bus
from actors.placement.job import Job, Work
from actors.streams.handoff import OnWinner
from orchestration.errors import BusUnavailable, DeadlineExceeded, InternalError
from orchestration.messages import Generation, StreamPosition, decode_generation

log = logging.getLogger(__name__)


async def prepare_hedge(job: Job, on_winner: OnWinner) -> Generation | None:
    """The generation for a second node, with the name of its writer; None when no second node is needed,
    because the reader has received something or has left.

    `on_winner` gets the name of the writer that began first. Raises the errors of the reader.
    """
    position = await job.reader.race(on_winner)
    if not position.open or position.alive:
        return None
    return with_continuation(job.work, position, job.model)


async def wait_for_bus(bus: Bus, job: Job, pause_s: float) -> bool:
    """Wait until NATS is connected; False when the generation was cancelled or expired first."""
    while not bus.connected:
        if job.cancelled or job.expired:
            return False
        await asyncio.sleep(pause_s)
    return True


async def prepare_move(bus: Bus, job: Job, pause_s: float) -> bool:
    """Set the body of `job` so that it continues where its reader is; False when that fails or nothing reads
    it."""
    while await wait_for_bus(bus, job, pause_s):
        try:
            position = await job.reader.position(attempt=job.attempt)
            break
        except BusUnavailable:
            await asyncio.sleep(pause_s)
        except (DeadlineExceeded, InternalError) as error:
            log.warning("cannot read the stream position of generation %s: %s", job.id, error)
            return False
    else:
        return False
    if not position.open:
        job.cancelled = True
        return False
    if position.superseded:
        job.superseded = True
        return False
    job.writer = position.continuation.writer
    job.continued = with_continuation(job.work, position, job.model)
    return True


def with_continuation(work: Work, position: StreamPosition, model: str) -> Generation | None:
    """The generation for `model`, to be continued at `position`. None for JSON that cannot be read; the node
    reports what is wrong with it."""
    if isinstance(work, bytes):
        try:
            work = decode_generation(work)
        except ValidationError:
            return None
    return work.model_copy(update={"model": model, "continuation": position.continuation})
