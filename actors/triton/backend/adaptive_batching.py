"""Adapts Triton's dynamic batching of embedding models to the load, where that is worth a reload."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass

from tritonclient.grpc import service_pb2

from actors.triton.backend.client import TritonClient
from actors.triton.backend.repository import batches_by_size
from actors.triton.backend.served_model import ServedModel
from actors.triton.backend.settings import TritonSettings
from orchestration.batching import AdaptiveBatching, Batching, BatchingSettings
from orchestration.errors import OrchestraError

log = logging.getLogger(__name__)

Set = Callable[[str, float, Sequence[int]], Awaitable[bool]]

MAX_WINDOW_S = 0.02
READINGS = 5
"""Number of readings that a decision is based on."""
NS = 1e-9


@dataclass(slots=True)
class _ModelBatching:
    """The batching step of a model, its current batching, and its last statistics."""

    step: str
    policy: AdaptiveBatching
    applied: Batching
    counted: service_pb2.ModelStatistics


class BatchingController:
    """Controls one server. `models` returns the loaded models; `set_batching` is the backend's."""

    def __init__(
        self, settings: TritonSettings, models: Callable[[], Iterable[ServedModel]], set_batching: Set
    ) -> None:
        self._settings = settings
        self._models = models
        self._set_batching = set_batching
        self._watched: dict[str, _ModelBatching] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self, server: TritonClient) -> None:
        if self._settings.batching_target_s:
            self._task = asyncio.create_task(self._watch(server), name="triton batching")

    async def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task})
        self._watched.clear()

    async def _watch(self, server: TritonClient) -> None:
        while True:
            await asyncio.sleep(self._settings.watch_s)
            models = {model.card.name: model for model in self._models() if model.embeds}
            self._watched = {name: each for name, each in self._watched.items() if name in models}
            for name, model in models.items():
                try:
                    await self._look(server, name, model)
                except OrchestraError as error:
                    log.info("the batching of model %s is not changed: %s", name, error)

    async def _look(self, server: TritonClient, name: str, model: ServedModel) -> None:
        now = asyncio.get_running_loop().time()
        watched = self._watched.get(name)
        if watched is None:
            found = await self._found(server, model, now)
            if found is not None:
                self._watched[name] = found
            return
        counted = await server.statistics(watched.step)
        observe(watched.policy, watched.counted, counted, now)
        watched.counted = counted
        decided = watched.policy.decide(now)
        # Under little load an unreached size costs nothing; only the window does.
        if decided.window_s == watched.applied.window_s and decided.size <= watched.applied.size:
            return
        watched.applied = decided
        # Only one size: Triton sends a batch as soon as it has any of the preferred sizes, so with small ones
        # no request would wait, and slightly larger batches would be split.
        if await self._set_batching(name, decided.window_s, (decided.size,)):
            window_ms, size = 1000 * decided.window_s, decided.size
            log.info("model %s now waits %.1f ms for batches of up to %d texts", name, window_ms, size)

    async def _found(self, server: TritonClient, model: ServedModel, now: float) -> _ModelBatching | None:
        """The state of a model; None if no step of it batches dynamically."""
        for step in model.steps or (model.upstream,):
            config = await server.config(step)
            if not batches_by_size(config):
                continue
            usual_size, max_size = max(config.dynamic_batching.preferred_batch_size), config.max_batch_size
            # Never below the repository's size: a backlog needs large batches, and without one they do not
            # form.
            powers = (1 << power for power in range(max_size.bit_length()))
            sizes = tuple(sorted({usual_size, max_size, *(size for size in powers if size > usual_size)}))
            settings = BatchingSettings(
                target_s=self._settings.batching_target_s,
                sizes=sizes,
                max_window_s=MAX_WINDOW_S,
                horizon_s=READINGS * self._settings.watch_s,
                hold_s=self._settings.batching_hold_s,
                calm_s=self._settings.batching_calm_s,
            )
            window_s = config.dynamic_batching.max_queue_delay_microseconds / 1e6
            usual = Batching(window_s=window_s, sizes=sizes[:1])
            policy = AdaptiveBatching(settings, now, usual)
            return _ModelBatching(step, policy, usual, await server.statistics(step))
        return None


def observe(
    policy: AdaptiveBatching,
    before: service_pb2.ModelStatistics,
    after: service_pb2.ModelStatistics,
    now: float,
) -> None:
    """Pass the batches between two readings to `policy`. A reloaded model counts from 0."""
    if after.execution_count < before.execution_count:
        before = service_pb2.ModelStatistics()
    queue, queued_before = after.inference_stats.queue, before.inference_stats.queue
    waited_s = NS * (queue.ns - queued_before.ns) / max(queue.count - queued_before.count, 1)
    known = {each.batch_size: each.compute_infer for each in before.batch_stats}
    for each in after.batch_stats:
        earlier = known.get(each.batch_size)
        count = each.compute_infer.count - (earlier.count if earlier is not None else 0)
        spent_ns = each.compute_infer.ns - (earlier.ns if earlier is not None else 0)
        if count > 0:
            took_s = NS * spent_ns / count
            policy.observe(now, size=each.batch_size, waited_s=waited_s, took_s=took_s, batches=count)
