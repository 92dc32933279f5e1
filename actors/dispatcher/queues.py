"""The queues that a dispatcher pulls from: one consumer per model and priority, open while they are in use.

Most generations go past the queue, so most queues are empty. The server announces each generation that it
stores; the first one of a model has a dispatcher open consumers. It also reads from time to time which queues
hold generations, in case it heard nothing of one.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from functools import partial

from actors.bus.bus import Bus, Subscription
from actors.bus.jetstream import Delivery, Puller
from actors.bus.provision import call_api, ensure_consumer
from actors.bus.subjects import GenerationQueue
from orchestration.errors import OrchestraError
from orchestration.messages import Priority

log = logging.getLogger(__name__)

IDLE_S = 60.0
"""Time without a generation after which the queues of a model are no longer pulled, only listened to."""
CHECK_S = 2.0
"""Time between two readings of which queues hold generations."""
RoomByPriority = Callable[[str], list[int]]
"""Returns how many more generations of a model to pull, for each priority, most urgent first."""


class Queues:
    """Pulls as many generations of each model as there is room for.

    `on_first` is called when a generation comes for a model whose queues are not open: call `serve`.
    """

    def __init__(
        self,
        bus: Bus,
        deliver: Callable[[Delivery], None],
        *,
        max_models: int,
        on_first: Callable[[], None],
        idle_s: float = IDLE_S,
        check_s: float = CHECK_S,
    ) -> None:
        self.bus = bus
        self.max_models = max_models
        self.deliver = deliver
        self.idle_s = idle_s
        self.check_s = check_s
        self._on_first = on_first
        self._listening: dict[str, Subscription] = {}
        self._pullers: dict[str, list[Puller]] = {}
        self._used_at: dict[str, float] = {}
        """When the queues of each open model last held a generation."""
        self._filled: set[str] = set()
        """Models with generations in queues that are not open."""
        self._check_at = 0.0
        self._stopped = False
        self._rejected: set[str] = set()

    async def start(self) -> None:
        """Read again which queues hold generations whenever NATS was away."""
        self.bus.on_reconnect.append(self._check_soon)

    async def serve(self, models: Iterable[str], paused: frozenset[str] = frozenset()) -> bool:
        """Serve these models too. When there are too many, models that are gone make room for new ones.
        Nothing is pulled of the `paused` ones.

        Returns False when some cannot be served yet, which is logged: call again.
        """
        if self._stopped:
            return True
        wanted = set(models)
        try:
            for model in wanted - self.models:
                if len(self.models) >= self.max_models:
                    await self._drop(self.models - wanted)
                if len(self.models) >= self.max_models:
                    self._reject_model(model)
                    continue
                await self._listen(model)
            for model in paused & self._pullers.keys():
                await self._close(model)
            await self._read_filled()
        except OrchestraError as error:
            log.warning("cannot listen to the queues of models: %s", error)
            return False
        done = True
        for model in list((self._filled & self._listening.keys()) - paused):
            if self._stopped:
                return True
            try:
                await self._open(model)
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

    async def _listen(self, model: str) -> None:
        subscription = await self.bus.subscribe(
            GenerationQueue.announcements(model), lambda message: self._fill(model)
        )
        if self._stopped:
            await subscription.unsubscribe()
            return
        self._listening[model] = subscription
        self._check_soon()  # something may have come before

    def _fill(self, model: str) -> None:
        if model not in self._filled:
            self._filled.add(model)
            self._on_first()

    def _check_soon(self) -> None:
        self._check_at = 0.0

    async def _read_filled(self) -> None:
        """Every `check_s`, and after what may have hidden a message, find the models whose queues hold
        generations. Those pulled already are among them until they are settled."""
        now = time.monotonic()
        if now < self._check_at:
            return
        self._check_at = now + self.check_s
        stream = f"STREAM.INFO.{GenerationQueue.STREAM}"
        present: set[str] = set()
        if (await call_api(self.bus, stream))["state"]["messages"]:
            info = await call_api(self.bus, stream, {"subjects_filter": "generations.>"})
            present = set(_models_of(info["state"].get("subjects") or ()))
        self._filled |= present & self._listening.keys()
        for model in present & self._pullers.keys():
            self._used_at[model] = now
        for model in [each for each in self._pullers if now - self._used_at[each] > self.idle_s]:
            await self._close(model)

    async def _open(self, model: str) -> None:
        queues = [GenerationQueue(priority, model) for priority in Priority]
        create = partial(ensure_consumer, self.bus, GenerationQueue.STREAM)
        await asyncio.gather(*(create(queue.consumer, queue.subject) for queue in queues))
        pullers = [Puller(self.bus, queue.STREAM, queue.consumer, self._on_delivery) for queue in queues]
        async with AsyncExitStack() as started:
            for puller in pullers:
                started.push_async_callback(puller.stop)
                await puller.start()
            if self._stopped:
                return
            started.pop_all()
        self._pullers[model] = pullers
        self._used_at[model] = time.monotonic()
        self._filled.discard(model)
        await self._listening.pop(model).unsubscribe()

    async def _close(self, model: str) -> None:
        """Listen again instead of pulling. The consumers stay at the server for a day."""
        await self._listen(model)
        self._used_at.pop(model, None)
        for puller in self._pullers.pop(model, ()):  # none when it was stopped meanwhile
            await puller.stop()

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
        dropped = list(models)
        self._filled.difference_update(dropped)
        for model in dropped:
            self._used_at.pop(model, None)
        pullers = [puller for model in dropped for puller in self._pullers.pop(model, ())]
        listening = [self._listening.pop(model) for model in dropped if model in self._listening]
        await asyncio.gather(*(each.unsubscribe() for each in listening), *(each.stop() for each in pullers))

    @property
    def models(self) -> frozenset[str]:
        """The models whose queues are served."""
        return frozenset(self._listening.keys() | self._pullers.keys())

    @property
    def open(self) -> frozenset[str]:
        """The models whose queues are pulled now."""
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
        self._stopped = True
        if self._check_soon in self.bus.on_reconnect:
            self.bus.on_reconnect.remove(self._check_soon)
        await self._drop(self.models)


def _models_of(subjects: Iterable[str]) -> Iterator[str]:
    """The models of queues; other subjects are left out."""
    for subject in subjects:
        try:
            yield GenerationQueue.parse(subject).model
        except ValueError:
            log.debug("the subject %s does not belong to Orchestra", subject)
