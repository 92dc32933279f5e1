"""Models that answer instead of one whose nodes all fail or are gone, in the order that was declared."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from actors.bus.bus import Bus
from actors.bus.subjects import GenerationQueue
from actors.dispatcher import migration as handover
from actors.dispatcher.job import Job
from actors.dispatcher.metrics import moved
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

    def next(self, job: Job) -> str:
        """The first of the models it has not been at that is served; '' if none is."""
        return next((name for name in self._left(job) if self.alive(name)), "")

    def _left(self, job: Job) -> tuple[str, ...]:
        asked = GenerationQueue.parse(job.delivery.message.subject).model
        return self.declared.get(asked, ())[job.fallbacks :]

    def stand_in(self, model: str) -> str:
        """Who would answer for `model` now: itself while it is served, else the first fallback that is."""
        if model in self.declared and not self.alive(model):
            return next((name for name in self.declared[model] if self.alive(name)), model)
        return model

    @property
    def stood_in_for(self) -> set[str]:
        """Models that are not served, and that others answer for."""
        return {model for model in self.declared if self.stand_in(model) != model}

    async def take(self, job: Job, error: OrchestraError | None, *, waits: bool) -> bool:
        """Whether `job` is now one for the next of its models, since `error` ended it or, where it could
        wait for a node (`waits`), no node of its model lives."""
        if error is None or not error.retryable or job.cancelled or job.expired:
            return False
        if waits and self.alive(job.queue.model):
            return False
        model = self.next(job)
        if not model:
            return False
        job.fallbacks += self._left(job).index(model) + 1
        log.warning("generation %s goes on with model %s: %s", job.id, model, error.message)
        moved(job.queue.model, "fallback").inc()
        before, job.queue = job.queue, GenerationQueue(job.queue.priority, model)
        if await handover.prepare(self.bus, job, self.pause_s):
            job.moves = 0
            return True
        job.queue = before
        return False
