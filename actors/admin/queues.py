"""The queues of runs and of each model: depth, age, and whether an operator has paused them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import Field
from pydantic_core import to_json

from actors.admin.audit import ON_NATS, Changed
from actors.admin.requests import ChangeRequest, NotThere, PageRequest
from actors.bus.bus import Bus
from actors.bus.provision import JetStreamError, call_api
from actors.bus.subjects import GenerationQueue, RunQueue
from actors.cluster.orders import GENERATIONS, RUNS, Order, Orders
from actors.cluster.registry import Registry
from actors.gateway.operation import CallContext, Reply
from orchestration.messages import Priority

NO_CONSUMER = 10014
"""JetStream's code for a consumer that does not exist."""


class QueueChange(ChangeRequest):
    """A change of one queue."""

    queue: str = Field(min_length=1, max_length=512)
    """`runs`, or `generations/` and the name of a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """One consumer of a queue: the messages that wait, those in progress, and the number of the first that
    waits, which is after `delivered`."""

    stream: str
    consumer: str
    filter: str
    waiting: int = 0
    running: int = 0
    delivered: int = 0


def consumers_of(queue: str) -> list[Backlog]:
    """The consumers of a queue, most urgent first, without their figures."""
    if queue == RUNS:
        return [
            Backlog(stream=RunQueue.STREAM, consumer=RunQueue.consumer(each), filter=f"runs.{each}.>")
            for each in Priority
        ]
    model = queue.removeprefix(GENERATIONS)
    queues = [GenerationQueue(each, model) for each in Priority]
    return [Backlog(stream=each.STREAM, consumer=each.consumer, filter=each.subject) for each in queues]


async def read_backlog(bus: Bus, of: Backlog) -> Backlog:
    """The present figures of a consumer. One that does not exist, because it was never used or for a day,
    has everything before it."""
    try:
        info = await call_api(bus, f"CONSUMER.INFO.{of.stream}.{of.consumer}")
    except JetStreamError as error:
        if error.err_code != NO_CONSUMER:
            raise
        state = await call_api(bus, f"STREAM.INFO.{of.stream}", {"subjects_filter": of.filter})
        waiting = sum((state["state"].get("subjects") or {}).values())
        return Backlog(stream=of.stream, consumer=of.consumer, filter=of.filter, waiting=waiting)
    return Backlog(
        stream=of.stream,
        consumer=of.consumer,
        filter=of.filter,
        waiting=info["num_pending"],
        running=info["num_ack_pending"],
        delivered=info["delivered"]["stream_seq"],
    )


async def oldest_age_s(bus: Bus, backlog: Backlog) -> float | None:
    """The age of the first message that waits; None if none does."""
    if not backlog.waiting:
        return None
    query = {"seq": backlog.delivered + 1, "next_by_subj": backlog.filter}
    try:
        found = await call_api(bus, f"STREAM.MSG.GET.{backlog.stream}", query)
    except JetStreamError:  # taken meanwhile
        return None
    stored_at = datetime.fromisoformat(found["message"]["time"]).timestamp()
    return max(0.0, round(time.time() - stored_at, 3))


class QueuesAdmin:
    """The handlers of the operations on queues, but purges."""

    def __init__(self, bus: Bus, registry: Registry) -> None:
        self.bus = bus
        self.registry = registry

    async def list_queues(self, request: PageRequest, call: CallContext) -> Reply:
        names = sorted(await self._names())
        page = [name for name in names if name > request.after][: request.limit]
        data = await asyncio.gather(*(self.state(name) for name in page))
        more = page[-1] if page and page[-1] != names[-1] else ""
        return Reply(body=to_json({"object": "list", "data": data, "next": more}))

    async def pause(self, request: QueueChange, call: CallContext) -> Changed:
        """Let nothing begin that waits in the queue, or comes to it. What is accepted stays accepted."""
        await self.check(request.queue)
        order = Order(by=call.caller or ON_NATS, at=time.time(), reason=request.reason)

        def paused(orders: Orders) -> Orders:
            if request.queue in orders.paused:
                return orders
            return orders.model_copy(update={"paused": orders.paused | {request.queue: order}})

        return await self._changed(request.queue, *await self.registry.orders.change(paused))

    async def resume(self, request: QueueChange, call: CallContext) -> Changed:
        """Take the pause of a queue back."""
        if request.queue not in self.registry.orders.current.paused:
            await self.check(request.queue)

        def resumed(orders: Orders) -> Orders:
            others = {name: order for name, order in orders.paused.items() if name != request.queue}
            return orders.model_copy(update={"paused": others})

        return await self._changed(request.queue, *await self.registry.orders.change(resumed))

    async def _changed(self, queue: str, before: Orders, after: Orders) -> Changed:
        return Changed(
            target=queue,
            before={"paused": _paused(before, queue)},
            after={"paused": _paused(after, queue)},
            changed=(queue in before.paused) != (queue in after.paused),
            body=await self.state(queue),
            about={"model": queue.removeprefix(GENERATIONS)} if queue != RUNS else {},
        )

    async def check(self, queue: str) -> None:
        """Raises `NotThere` for a queue that does not exist."""
        known = await self._names()
        if queue not in known and queue.removeprefix(GENERATIONS) not in self.registry.known:
            raise NotThere.of("queue", queue, known, "queue")
        if queue != RUNS and not queue.startswith(GENERATIONS):
            raise NotThere.of("queue", queue, known, "queue")

    async def state(self, queue: str) -> dict[str, Any]:
        """The figures of one queue, and who has paused it."""
        backlogs = await asyncio.gather(*(read_backlog(self.bus, each) for each in consumers_of(queue)))
        ages = await asyncio.gather(*(oldest_age_s(self.bus, each) for each in backlogs))
        return {
            "name": queue,
            "waiting": sum(each.waiting for each in backlogs),
            "running": sum(each.running for each in backlogs),
            "waiting_by_priority": {
                str(priority): each.waiting for priority, each in zip(Priority, backlogs, strict=True)
            },
            "oldest_age_s": max((age for age in ages if age is not None), default=None),
            "paused": _paused(self.registry.orders.current, queue),
        }

    async def _names(self) -> set[str]:
        """The queue of runs, and those of models that are served, have work waiting, or are paused."""
        info = await call_api(
            self.bus, f"STREAM.INFO.{GenerationQueue.STREAM}", {"subjects_filter": "generations.>"}
        )
        models = {*self.registry.cards, *_models(info["state"].get("subjects") or ())}
        return {RUNS, *self.registry.orders.current.paused, *(f"{GENERATIONS}{model}" for model in models)}


def _models(subjects: Iterable[str]) -> Iterable[str]:
    for subject in subjects:
        try:
            yield GenerationQueue.parse(subject).model
        except ValueError:
            continue


def _paused(orders: Orders, queue: str) -> dict[str, Any] | None:
    order = orders.paused.get(queue)
    return None if order is None else order.model_dump()
