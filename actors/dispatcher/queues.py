"""The queues a dispatcher pulls from: one consumer per model and priority, made as models appear."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from actors.runtime.bus import Bus
from actors.runtime.jetstream import Delivery, Puller
from actors.runtime.provision import ensure_consumer
from actors.runtime.subjects import GenerationQueue
from orchestration.messages import Priority


class Queues:
    """Pulls for each model as much as there is room for."""

    def __init__(self, bus: Bus, deliver: Callable[[Delivery], None], *, max_models: int) -> None:
        self.bus = bus
        self.max_models = max_models
        self._deliver = deliver
        self._pullers: dict[str, list[Puller]] = {}

    async def serve(self, models: Iterable[str]) -> None:
        """Start pulling for models not served yet."""
        for model in models:
            if model in self._pullers or len(self._pullers) >= self.max_models:
                continue
            pullers: list[Puller] = []
            for priority in Priority:
                queue = GenerationQueue(priority, model)
                await ensure_consumer(self.bus, queue.STREAM, queue.consumer, queue.subject)
                puller = Puller(self.bus, queue.STREAM, queue.consumer, self._deliver)
                await puller.start()
                pullers.append(puller)
            self._pullers[model] = pullers

    def ask(self, room: Callable[[str], int]) -> None:
        """Let each queue send as many as there is room for its model."""
        for model, pullers in self._pullers.items():
            free = room(model)
            for puller in pullers:
                puller.want(free)

    async def stop(self) -> None:
        """Pull nothing more."""
        served, self._pullers = self._pullers, {}
        for pullers in served.values():
            for puller in pullers:
                await puller.stop()
