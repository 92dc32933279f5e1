"""A generation between the queue and its node."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field

from actors.asker import ID_HEADER
from actors.runtime.envelope import Envelope
from actors.runtime.jetstream import Delivery
from actors.runtime.subjects import GenerationQueue
from orchestration.errors import OrchestraError
from orchestration.messages import NodeInfo


@dataclass(slots=True, eq=False)
class Job:
    """A pulled generation. `task` is set while it is on a node."""

    id: str
    queue: GenerationQueue
    delivery: Delivery
    envelope: Envelope
    pulled_at: float = field(default_factory=time.monotonic)
    cancelled: bool = False
    task: asyncio.Task[object] | None = None

    @classmethod
    def of(cls, delivery: Delivery) -> Job:
        """Read from the headers and the subject alone: the body passes through unread."""
        message = delivery.message
        return cls(
            message.header(ID_HEADER),
            GenerationQueue.parse(message.subject),
            delivery,
            Envelope.from_headers(message.headers),
        )

    @property
    def expired(self) -> bool:
        return 0 < self.envelope.deadline < time.time()


@dataclass(frozen=True, slots=True)
class Place:
    """Run `job` on `node`."""

    job: Job
    node: NodeInfo


@dataclass(frozen=True, slots=True)
class Settle:
    """End `job` without running it."""

    job: Job
    error: OrchestraError
