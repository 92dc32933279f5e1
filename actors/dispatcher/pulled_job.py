"""A generation that was pulled from a queue, and the messages by which a dispatcher continues it."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

from pydantic import ValidationError

from actors.bus.bus import Bus
from actors.bus.jetstream import Delivery
from actors.bus.subjects import GenerationQueue
from actors.placement import migration
from actors.placement.job import Job
from actors.runtime.envelope import Envelope
from actors.streams.client import DIRECT_ERROR, DIRECT_MOVES, ID_HEADER
from actors.streams.handoff import RemoteReader
from actors.telemetry import conventions as names
from actors.telemetry.tracing import start_span, tracing
from orchestration.errors import BackendFailed, InternalError, OrchestraError, from_body
from orchestration.messages import ErrorBody, NodeInfo, StreamPosition
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
    def direct_error(self) -> OrchestraError | None:
        """The error that it got on the direct path, if any; a general one if the header cannot be read."""
        header = self.delivery.message.header(DIRECT_ERROR)
        if not header:
            return None
        try:
            return from_body(ErrorBody.model_validate_json(header))
        except ValidationError:
            return BackendFailed("the nodes of the generation failed")

    @property
    def requested_model(self) -> str:
        """The model that was requested; a fallback may answer for it."""
        return GenerationQueue.parse(self.delivery.message.subject).model

    @property
    def on_node(self) -> bool:
        """Whether a node works on it."""
        return self.placed and self.timer is None

    async def position(self, quiet_s: float) -> StreamPosition:
        """How far its stream has come. Where that cannot be read, its beginning: a reader accepts one writer
        only."""
        try:
            return await self.reader.position(quiet_s=quiet_s, attempt=self.attempt)
        except OrchestraError as error:
            log.info("generation %s starts again from its beginning: %s", self.id, error)
            return StreamPosition()

    def continue_at(self, position: StreamPosition) -> None:
        """Take over what another writer has written."""
        self.cancelled = self.cancelled or not position.open
        if position.continuation.writer:
            self.writer = position.continuation.writer
            self.continued = migration.with_continuation(self.work, position, self.model)

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

    def start_timer(self, seconds: float, call: Callable[..., object], *args: Any) -> None:
        """Call `call` after so many seconds, unless `stop_timer` is called before."""
        self.timer = asyncio.get_running_loop().call_later(seconds, call, *args)

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


@dataclass(frozen=True, slots=True)
class JobFailure:
    """The sink of a handler that works on `job`. A defect in the handler ends the job, which would wait
    forever otherwise."""

    job: PulledJob
    end: Callable[[PulledJob, OrchestraError], None]

    async def item(self, value: Any) -> None: ...

    async def done(self, value: Any) -> None: ...

    async def failed(self, error: OrchestraError) -> None:
        if isinstance(error, InternalError):
            self.end(self.job, error)


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
