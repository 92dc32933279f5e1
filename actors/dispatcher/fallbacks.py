"""Models that answer instead of a model whose nodes have all failed, in the order of the settings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping

from actors.bus.bus import Bus
from actors.dispatcher.pulled_job import PulledJob
from actors.placement import migration
from actors.placement.metrics import moved
from orchestration.errors import OrchestraError

log = logging.getLogger(__name__)


class Fallbacks:
    """Chooses fallback models and moves generations to them.

    `live_nodes` returns the nodes that serve a model and answer pings. `fallbacks` are the fallback models by
    requested model. An answer that has begun continues with the fallback model from the text so far; its end
    names that model.
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

    def next(self, job: PulledJob) -> str:
        """The first served model that the job has not tried yet; '' when there is none."""
        return next((name for name in self._remaining(job) if self.live_nodes(name)), "")

    def _remaining(self, job: PulledJob) -> tuple[str, ...]:
        return self.fallbacks.get(job.requested_model, ())[job.fallbacks :]

    def serving_model(self, model: str) -> str:
        """The model that would answer for `model` now: itself while it is served, else its first served
        fallback."""
        if model in self.fallbacks and not self.live_nodes(model):
            return next((name for name in self.fallbacks[model] if self.live_nodes(name)), model)
        return model

    @property
    def replaced_models(self) -> set[str]:
        """Models that no node serves now and that a fallback answers for."""
        return {model for model in self.fallbacks if self.serving_model(model) != model}

    async def switch(self, job: PulledJob, error: OrchestraError | None, *, waits: bool) -> bool:
        """Switch `job` to its next model after `error`; returns whether it did.

        With `waits` the job could also wait for a node of its model; then it switches only if no such node is
        alive.
        """
        if error is None or not error.retryable or job.cancelled or job.expired:
            return False
        if waits and self.live_nodes(job.model):
            return False
        model = self.next(job)
        if not model:
            return False
        job.fallbacks += self._remaining(job).index(model) + 1
        log.warning("generation %s continues with model %s: %s", job.id, model, error.message)
        moved(job.model, "fallback").inc()
        before = job.model
        job.use_model(model)
        if await migration.prepare_move(self.bus, job, self.pause_s):
            job.moves = 0
            return True
        job.use_model(before)
        return False
