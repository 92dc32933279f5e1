"""A generation between the queue and its node."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field, replace

from actors.bus.jetstream import Delivery
from actors.bus.subjects import GenerationQueue
from actors.runtime.envelope import Envelope
from actors.streams.client import ID_HEADER
from orchestration.errors import OrchestraError
from orchestration.messages import NodeInfo

_ID = re.compile(r"[\w-]+\.[\w-]+")


@dataclass(slots=True, eq=False)
class Job:
    """A pulled generation. It `waits` for a node, is `placed` on one, pauses between the two, or is
    `settled`."""

    id: str
    queue: GenerationQueue
    delivery: Delivery
    envelope: Envelope
    pulled_at: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    waits: bool = False
    placed: bool = False
    settled: bool = False
    superseded: bool = False
    """Another dispatcher has the generation now, from a later delivery: leave it and its message alone."""
    body: bytes = b""
    """The body for the next node, which continues from a prefix; empty means the body of the message."""
    moves: int = 0
    """The number of nodes that died or failed while they had the generation."""
    tried: set[str] = field(default_factory=set)
    """Nodes that have or had the generation since it last waited."""
    refusals_before: int = 0
    """The refusals by servers of its model at the time when it began to wait for that model."""
    fallbacks: int = 0
    """The number of fallback models that were skipped or tried."""
    timer: asyncio.TimerHandle | None = None
    """Ends the wait at the deadline, or ends the pause."""

    @classmethod
    def from_delivery(cls, delivery: Delivery) -> Job:
        """Read the headers and the subject; the body is passed on unread.

        Raises ValueError for a message that is not a generation.
        """
        message = delivery.message
        job_id = message.header(ID_HEADER)
        if not _ID.fullmatch(job_id):
            raise ValueError(f"{job_id[:80]!r} is not the id of a generation")
        envelope = Envelope.from_headers(message.headers)
        attempt = delivery.attempt
        return cls(
            job_id,
            GenerationQueue.parse(message.subject),
            delivery,
            replace(envelope, attempt=attempt) if attempt != envelope.attempt else envelope,
        )

    @property
    def on_node(self) -> bool:
        """Whether a node works on it."""
        return self.placed and self.timer is None

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    @property
    def expired(self) -> bool:
        return 0 < self.envelope.deadline < time.time()


@dataclass(frozen=True, slots=True)
class PlaceJob:
    """Run `job` on `node`."""

    job: Job
    node: NodeInfo


@dataclass(frozen=True, slots=True)
class UseFallback:
    """Have another model answer `job`, because no node of its own model is alive."""

    job: Job


@dataclass(frozen=True, slots=True)
class RefuseJob:
    """End `job`, or have another model answer it, because the servers of its model refuse work for now."""

    job: Job
    error: OrchestraError


@dataclass(frozen=True, slots=True)
class RecoverJob:
    """Find out the state of `job`, which another dispatcher had before."""

    job: Job
