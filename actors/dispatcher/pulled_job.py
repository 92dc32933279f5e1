"""A generation that was pulled from a queue, and the messages by which a dispatcher continues it."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from dataclasses import dataclass, replace
from functools import lru_cache

from actors.bus.bus import Bus
from actors.bus.jetstream import Delivery
from actors.bus.subjects import GenerationQueue
from actors.placement.job import Job
from actors.runtime.envelope import Envelope
from actors.streams.client import DIRECT_MOVES, ID_HEADER
from actors.streams.handoff import RemoteReader
from actors.telemetry import conventions as names
from actors.telemetry.tracing import start_span, tracing
from orchestration.errors import OrchestraError
from orchestration.messages import NodeInfo
from orchestration.placement import NEEDS_HEADER, Needs

log = logging.getLogger(__name__)

_ID = re.compile(r"[\w-]+\.[\w-]+")


@dataclass(slots=True, eq=False, kw_only=True)
class PulledJob(Job):
    """A pulled generation. It `waits` for a node, is `placed` on one, pauses between the two, or is
    `settled`."""

    delivery: Delivery
    placed: bool = False
    settled: bool = False
    fallbacks: int = 0
    """The number of fallback models that were skipped or tried."""
    timer: asyncio.TimerHandle | None = None
    """Ends the wait at the deadline, or ends the pause."""
    waited: bool = False
    """Whether its wait was recorded as a span."""

    @classmethod
    def from_delivery(cls, bus: Bus, delivery: Delivery) -> PulledJob:
        """Read the headers and the subject; the body is passed on unread.

        Raises ValueError for a message that is not a generation.
        """
        message = delivery.message
        job_id = message.header(ID_HEADER)
        if not _ID.fullmatch(job_id):
            raise ValueError(f"{job_id[:80]!r} is not the id of a generation")
        queue = GenerationQueue.parse(message.subject)
        envelope = Envelope.from_headers(message.headers)
        attempt = delivery.attempt
        return cls(
            id=job_id,
            model=queue.model,
            priority=queue.priority,
            envelope=replace(envelope, attempt=attempt) if attempt != envelope.attempt else envelope,
            needs=_decode(queue.model, message.header(NEEDS_HEADER)),
            work=message.data,
            reader=RemoteReader(bus, job_id),
            attempt=attempt,
            moves=_number(message.header(DIRECT_MOVES)),
            queued_s=max(0.0, time.time() - delivery.stored_at) if attempt == 1 else 0.0,
            delivery=delivery,
        )

    @property
    def was_direct(self) -> bool:
        """Whether it was on the direct path before it was queued."""
        return bool(self.delivery.message.header(DIRECT_MOVES))

    @property
    def requested_model(self) -> str:
        """The model that was requested; a fallback may answer for it."""
        return GenerationQueue.parse(self.delivery.message.subject).model

    @property
    def on_node(self) -> bool:
        """Whether a node works on it."""
        return self.placed and self.timer is None

    def record_wait(self) -> None:
        """Record the span of its wait in the queue and here, once."""
        if self.waited or tracing.tracer is None:
            return
        self.waited = True
        attributes = {
            names.MESSAGING_SYSTEM: "nats",
            names.MESSAGING_DESTINATION: GenerationQueue.STREAM,
            names.PRIORITY: self.priority.value,
            names.ATTEMPT: self.attempt,
        }
        trace, stored_ns = self.envelope.trace, self.delivery.stored_ns
        start_span("queue", trace, attributes, began_ns=stored_ns, scope=self.scope).end()

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


@dataclass(frozen=True, slots=True)
class PlaceJob:
    """Run `job` on `node`."""

    job: PulledJob
    node: NodeInfo


@dataclass(frozen=True, slots=True)
class UseFallback:
    """Have another model answer `job`, because no node of its own model is alive."""

    job: PulledJob


@dataclass(frozen=True, slots=True)
class RefuseJob:
    """End `job`, or have another model answer it, because of `error`: the servers of its model refuse work,
    or nodes failed before it was queued."""

    job: PulledJob
    error: OrchestraError


@dataclass(frozen=True, slots=True)
class RecoverJob:
    """Find out the state of `job`, which another dispatcher had before."""

    job: PulledJob


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) < 3 else 0


@lru_cache(maxsize=4096)
def _decode(model: str, text: str) -> Needs:
    """The needs in a header; default needs when it cannot be read."""
    try:
        return Needs.decode(model, text)
    except ValueError as error:
        log.warning("cannot read the needs of a generation of model %r: %s", model, error)
        return Needs(model=model)
