"""Models that answer instead of one whose nodes all fail or are gone, in the order that was declared."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from actors.bus.bus import Bus
from actors.bus.subjects import GenerationQueue
from actors.dispatcher import migration
from actors.dispatcher.job import Job
from actors.dispatcher.metrics import moved
from orchestration.errors import OrchestraError

log = logging.getLogger(__name__)


class Fallbacks:
    """`live_nodes` names the nodes that serve a model and answer; `fallbacks` is by the model that was asked
    for.

    An answer that has begun goes on with the next model from the same prefix; its end names that model.
    """

    def __init__(
        self,
        bus: Bus,
        live_nodes: Callable[[str], set[str]],
        fallbacks: Mapping[str, tuple[str, ...]],
        pause_s: float,
    ) -> None:
        self.bus = bus
        self.live_nodes = live_nodes
        self.fallbacks = fallbacks
        self.pause_s = pause_s

    def next(self, job: Job) -> str:
        """The first of the models it has not been at that is served; '' if none is."""
        return next((name for name in self._remaining(job) if self.live_nodes(name)), "")

    def _remaining(self, job: Job) -> tuple[str, ...]:
        requested = GenerationQueue.parse(job.delivery.message.subject).model
        return self.fallbacks.get(requested, ())[job.fallbacks :]

    def serving_model(self, model: str) -> str:
        """Who would answer for `model` now: itself while it is served, else the first fallback that is."""
        if model in self.fallbacks and not self.live_nodes(model):
            return next((name for name in self.fallbacks[model] if self.live_nodes(name)), model)
        return model

    @property
    def replaced_models(self) -> set[str]:
        """Models that are not served, and that others answer for."""
        return {model for model in self.fallbacks if self.serving_model(model) != model}

    async def switch(self, job: Job, error: OrchestraError | None, *, waits: bool) -> bool:
        """Whether `job` is now one for the next of its models, since `error` ended it or, where it could
        wait for a node (`waits`), no node of its model lives."""
        if error is None or not error.retryable or job.cancelled or job.expired:
            return False
        if waits and self.live_nodes(job.queue.model):
            return False
        model = self.next(job)
        if not model:
            return False
        job.fallbacks += self._remaining(job).index(model) + 1
        log.warning("generation %s goes on with model %s: %s", job.id, model, error.message)
        moved(job.queue.model, "fallback").inc()
        before, job.queue = job.queue, GenerationQueue(job.queue.priority, model)
        if await migration.prepare_move(self.bus, job, self.pause_s):
            job.moves = 0
            return True
        job.queue = before
        return False
