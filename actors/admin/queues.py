"""The queues of runs and of each model: depth, age, and whether an operator has paused them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from pydantic import Field
from pydantic_core import to_json

from actors.admin.audit import Changed
from actors.admin.requests import ChangeRequest, NotThere, PageRequest, page_of
from actors.bus.bus import Bus
from actors.bus.depth_reader import read_depth
from actors.bus.queue_depth import ClusterDepth, QueueDepth
from actors.bus.subjects import GenerationQueue, RunQueue
from actors.cluster.orders import GENERATIONS, RUNS, Edit, Order, Orders, add_order, remove_orders
from actors.cluster.registry import Registry
from actors.gateway.operation import CallContext, Reply
from orchestration.messages import Priority


class QueueChange(ChangeRequest):
    """A change of one queue."""

    queue: str = Field(min_length=1, max_length=512)
    """`runs`, or `generations/` and the name of a model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueConsumer:
    """One consumer of a queue."""

    stream: str
    consumer: str
    filter: str


def consumers_of(queue: str) -> list[QueueConsumer]:
    """The consumers of a queue, most urgent first."""
    if queue == RUNS:
        return [
            QueueConsumer(stream=RunQueue.STREAM, consumer=RunQueue.consumer(each), filter=f"runs.{each}.>")
            for each in Priority
        ]
    model = queue.removeprefix(GENERATIONS)
    queues = [GenerationQueue(each, model) for each in Priority]
    return [QueueConsumer(stream=each.STREAM, consumer=each.consumer, filter=each.subject) for each in queues]


class QueuesAdmin:
    """The handlers of the operations on queues, but purges."""

    def __init__(self, bus: Bus, registry: Registry) -> None:
        self.bus = bus
        self.registry = registry

    async def list_queues(self, request: PageRequest, call: CallContext) -> Reply:
        depth = await read_depth(self.bus)
        names = sorted(self._names(depth))
        return Reply(body=to_json(page_of(names, request, str, lambda name: self._row(name, depth))))

    async def pause(self, request: QueueChange, call: CallContext) -> Changed:
        """Let nothing begin that waits in the queue, or comes to it. What is accepted stays accepted."""
        await self.check(request.queue)
        order = Order(by=call.operator, at=time.time(), reason=request.reason)
        return await self._changed(request.queue, add_order("paused", request.queue, order))

    async def resume(self, request: QueueChange, call: CallContext) -> Changed:
        """Take the pause of a queue back."""
        if request.queue not in self.registry.orders.current.paused:
            await self.check(request.queue)
        return await self._changed(request.queue, remove_orders("paused", request.queue.__eq__))

    async def _changed(self, queue: str, edit: Edit) -> Changed:
        before, after = await self.registry.orders.change(edit)
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
        model = queue.removeprefix(GENERATIONS)
        if queue == RUNS or (model != queue and model in self.registry.known):
            return
        known = self._names(await read_depth(self.bus))
        if queue not in known:
            raise NotThere.of("queue", queue, known, "queue")

    async def state(self, queue: str) -> dict[str, Any]:
        """The figures of one queue, and who has paused it."""
        return self._row(queue, await read_depth(self.bus))

    def _row(self, queue: str, depth: ClusterDepth) -> dict[str, Any]:
        parts = [part for part in depth.parts if _name(part) == queue]
        ages = [part.age_s(depth.at) for part in parts if part.oldest_at is not None]
        by_priority = {str(priority): 0 for priority in Priority}
        for part in parts:
            by_priority[part.priority] += part.waiting
        return {
            "name": queue,
            "waiting": sum(part.waiting for part in parts),
            "running": sum(part.in_progress for part in parts),
            "waiting_by_priority": by_priority,
            "oldest_age_s": round(max(ages), 3) if ages else None,
            "paused": _paused(self.registry.orders.current, queue),
        }

    def _names(self, depth: ClusterDepth) -> set[str]:
        """The queue of runs, and those of models that are served, have work, or are paused."""
        used = {name for part in depth.parts if (name := _name(part))}
        served = {f"{GENERATIONS}{model}" for model in self.registry.cards}
        return {RUNS, *self.registry.orders.current.paused, *served, *used}


def _name(part: QueueDepth) -> str:
    """The name of the queue that an operator can pause; '' for another one."""
    if part.queue == RunQueue.STREAM:
        return RUNS
    return f"{GENERATIONS}{part.model}" if part.queue == GenerationQueue.STREAM and part.model else ""


def _paused(orders: Orders, queue: str) -> dict[str, Any] | None:
    order = orders.paused.get(queue)
    return None if order is None else order.model_dump()
