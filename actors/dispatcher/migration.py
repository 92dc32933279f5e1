"""Moves a generation to the next node: what the reader has received becomes the prefix that it continues.

The dispatcher does not listen to the stream: a second listener would double its messages and
hide from the node that its caller is gone. Who reads knows the text anyway, so it is asked, and only when
a generation moves; its answer also shuts out whatever the node that was given up still writes.
"""

from __future__ import annotations

import asyncio
import logging

from pydantic import ValidationError

from actors.bus.bus import Bus
from actors.dispatcher.job import Job
from actors.jobs.dead_letters import dead_letter_delivery
from actors.streams.handoff import request_race, stream_position
from orchestration.errors import BusUnavailable, DeadlineExceeded, InternalError, OrchestraError
from orchestration.messages import Continuation, Generation, StreamPosition

log = logging.getLogger(__name__)


async def dead_letter_job(job: Job) -> InternalError:
    """Dead-letter a generation that no dispatcher survived; returns the error for its reader."""
    error = InternalError(f"given up: it was delivered {job.delivery.attempt - 1} times, and came to no end")
    try:
        await dead_letter_delivery(job.delivery, error)
    except OrchestraError as failure:  # its reader must hear of it, or it would wait until its deadline
        log.error("generation %s was given up, and is not among the dead letters: %s", job.id, failure)
    return error


async def prepare_hedge(bus: Bus, job: Job, decision_subject: str) -> tuple[str, bytes]:
    """How a second node signs that is to race the first one, and what it gets: nothing where it is not
    needed, since something was read meanwhile, or nobody reads any more.

    Who came first is published to `decision_subject`. Raises what `stream_position` does.
    """
    position = await request_race(bus, job.id, decision_subject)
    if not position.open or position.alive:
        return "", b""
    return position.writer, with_continuation(job.delivery.message.data, position, job.queue.model)


async def wait_for_bus(bus: Bus, job: Job, pause_s: float) -> bool:
    """Wait until NATS is there; False when the generation ran out of time first."""
    while not bus.connected:
        if job.cancelled or job.expired:
            return False
        await asyncio.sleep(pause_s)
    return True


async def prepare_move(bus: Bus, job: Job, pause_s: float) -> bool:
    """Make the body of `job` one that goes on where its reader is; False when it cannot, or nobody reads."""
    while await wait_for_bus(bus, job, pause_s):
        try:
            position = await stream_position(bus, job.id, attempt=job.delivery.attempt)
            break
        except BusUnavailable:
            await asyncio.sleep(pause_s)
        except (DeadlineExceeded, InternalError) as error:
            log.warning("nobody can say how far generation %s has come: %s", job.id, error)
            return False
    else:
        return False
    if not position.open:
        job.cancelled = True
        return False
    if position.superseded:
        job.superseded = True
        return False
    job.body = with_continuation(job.delivery.message.data, position, job.queue.model)
    return True


def with_continuation(body: bytes, position: StreamPosition, model: str) -> bytes:
    """The generation in `body`, to be gone on with by `model`. One that cannot be read stays as it is: the
    node says what is wrong with it."""
    try:
        generation = Generation.model_validate_json(body)
    except ValidationError:
        return body
    return (
        generation.model_copy(
            update={
                "model": model,
                "continuation": Continuation(
                    text=position.text,
                    tokens=position.tokens,
                    first_seq=position.seq,
                    writer=position.writer,
                ),
            }
        )
        .model_dump_json(exclude_defaults=True)
        .encode()
    )
