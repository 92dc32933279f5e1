"""The queues that a dispatcher pulls from: one consumer per model and priority, created as models appear."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from actors.bus.bus import Bus
from actors.bus.jetstream import Delivery, Puller
from actors.bus.provision import ensure_consumer
from actors.bus.subjects import GenerationQueue
from orchestration.errors import OrchestraError
from orchestration.messages import Priority

log = logging.getLogger(__name__)


RoomByPriority = Callable[[str], list[int]]
"""Returns how many more generations of a model to pull, for each priority, most urgent first."""


class Queues:
    """Pulls as many generations of each model as there is room for."""

    def __init__(self, bus: Bus, deliver: Callable[[Delivery], None], *, max_models: int) -> None:
        self.bus = bus
        self.max_models = max_models
        self.deliver = deliver
        self._pullers: dict[str, list[Puller]] = {}
        self._rejected: set[str] = set()

    async def serve(self, models: Iterable[str]) -> bool:
        """Pull for these models. When there are too many, models that are gone make room for new ones.

        Returns False when some cannot be pulled yet, which is logged: call again.
        """
        wanted = set(models)
        done = True
        for model in wanted - self._pullers.keys():
            if len(self._pullers) >= self.max_models:
                await self._drop(self._pullers.keys() - wanted)
            if len(self._pullers) >= self.max_models:
                self._reject_model(model)
                continue
            try:
                self._pullers[model] = await self._open(model)
            except OrchestraError as error:
                done = False
                log.warning("cannot pull for model %r: %s", model, error)
        return await self._restore_consumers() and done

    def _reject_model(self, model: str) -> None:
        if model not in self._rejected and len(self._rejected) < self.max_models:
            self._rejected.add(model)
            log.error(
                "model %r is not served: limit of %d models reached (dispatcher.max_models)",
                model,
                self.max_models,
            )

    async def _open(self, model: str) -> list[Puller]:
        pullers: list[Puller] = []
        for priority in Priority:
            queue = GenerationQueue(priority, model)
            await ensure_consumer(self.bus, queue.STREAM, queue.consumer, queue.subject)
            pullers.append(Puller(self.bus, queue.STREAM, queue.consumer, self._on_delivery))
        for puller in pullers:
            await puller.start()
        return pullers

    def _on_delivery(self, delivery: Delivery) -> None:
        self.deliver(delivery)

    async def _restore_consumers(self) -> bool:
        """Create consumers again that were deleted from outside."""
        for model, pullers in list(self._pullers.items()):
            for priority, puller in zip(Priority, pullers, strict=True):
                if puller.missing:
                    queue = GenerationQueue(priority, model)
                    try:
                        await ensure_consumer(self.bus, queue.STREAM, queue.consumer, queue.subject)
                    except OrchestraError as error:
                        log.warning("cannot pull for model %r: %s", model, error)
                        return False
                    puller.missing = False
                    log.info("consumer %s was deleted and has been created again", queue.consumer)
        return True

    async def _drop(self, models: Iterable[str]) -> None:
        dropped = [self._pullers.pop(model) for model in list(models)]
        await asyncio.gather(*(puller.stop() for pullers in dropped for puller in pullers))

    @property
    def models(self) -> frozenset[str]:
        """The models whose queues are pulled."""
        return frozenset(self._pullers)

    def pull(self, room: RoomByPriority) -> None:
        """Request from each queue as many generations as there is room for."""
        for model in self._pullers:
            self.pull_model(model, room)

    def pull_model(self, model: str, room: RoomByPriority) -> None:
        """Request from the queues of one model."""
        pullers = self._pullers.get(model)
        if pullers is not None:
            for puller, wanted in zip(pullers, room(model), strict=True):
                puller.request(wanted)

    async def stop(self) -> None:
        """Pull nothing more."""
        await self._drop(self._pullers.keys())
