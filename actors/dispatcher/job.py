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
    """A pulled generation. It `waits`, is `placed` on a node, pauses between the two, or is `settled`."""

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
    """Another dispatcher has it by now, from a later delivery: leave it, and its message, alone."""
    body: bytes = b""
    """What the next node gets instead of the message's body: it goes on from a prefix."""
    moves: int = 0
    """Nodes lost or failed under it."""
    tried: set[str] = field(default_factory=set)
    """Nodes that have it or had it since it waited last."""
    refusals_before: int = 0
    """Refusals by servers of its model when it began to wait for that."""
    fallbacks: int = 0
    """Models passed by or tried instead of the one that was asked for."""
    timer: asyncio.TimerHandle | None = None
    """Ends the wait at the deadline, or the pause."""

    @classmethod
    def from_delivery(cls, delivery: Delivery) -> Job:
        """Read from the headers and the subject alone: the body passes through unread.

        Raises ValueError for a message that no asker of ours has sent.
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
        """Whether it is at work, rather than waiting or pausing."""
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
    """Have another model answer `job`: no node of its own is there."""

    job: Job


@dataclass(frozen=True, slots=True)
class RefuseJob:
    """End `job`, or have another model answer it: the servers of its own ask to be left alone."""

    job: Job
    error: OrchestraError


@dataclass(frozen=True, slots=True)
class RecoverJob:
    """Find out what has become of `job`, which another dispatcher had before."""

    job: Job
