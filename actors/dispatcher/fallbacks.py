"""Models that answer instead of one whose nodes all fail or are gone, in the order that was declared."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from actors.dispatcher import handover
from actors.dispatcher.job import Job
from actors.dispatcher.metrics import moved
from actors.runtime.bus import Bus
from actors.runtime.subjects import GenerationQueue
from orchestration.errors import OrchestraError

log = logging.getLogger(__name__)


class Fallbacks:
    """`alive` names the nodes that serve a model and answer; `declared` is by the model that was asked for.

    An answer that has begun goes on with the next model from the same prefix; its end names that model.
    """

    def __init__(
        self,
        bus: Bus,
        alive: Callable[[str], set[str]],
        declared: Mapping[str, tuple[str, ...]],
        pause_s: float,
    ) -> None:
        self.bus = bus
        self.alive = alive
        self.declared = declared
        self.pause_s = pause_s

    async def take(self, job: Job, error: OrchestraError | None, *, waits: bool) -> bool:
        """Whether `job` is now one for the next of its models, since `error` ended it or, where it could
        wait for a node (`waits`), no node of its model lives."""
        if error is None or not error.retryable or job.cancelled or job.expired:
            return False
        if waits and self.alive(job.queue.model):
            return False
        asked = GenerationQueue.parse(job.delivery.message.subject).model
        left = self.declared.get(asked, ())[job.fallbacks :]
        for model in left:
            job.fallbacks += 1
            if self.alive(model):
                break
        else:
            return False
        log.warning("generation %s goes on with model %s: %s", job.id, model, error.message)
        moved(job.queue.model, "fallback").inc()
        job.queue = GenerationQueue(job.queue.priority, model)
        job.moves = 0
        return await handover.prepare(self.bus, job, self.pause_s)
