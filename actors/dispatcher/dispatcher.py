"""Takes generations off the queue when a node has room, places them, and settles them.

The backlog stays in JetStream: a dispatcher pulls no more than the nodes it sees could start.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import time
from collections import OrderedDict, defaultdict

from prometheus_client import Counter, Gauge, Histogram

from actors.asker import DEFAULT_DEADLINE_S, OUT_OF_BAND
from actors.dispatcher.job import Job, Place, Settle
from actors.dispatcher.queues import Queues
from actors.dispatcher.settings import DispatcherSettings
from actors.registry import Registry
from actors.runtime.actor import Actor
from actors.runtime.bus import Bus, Message, Subscription
from actors.runtime.envelope import Envelope
from actors.runtime.jetstream import Delivery
from actors.runtime.service import ERROR
from actors.runtime.subjects import NodeAddress, StreamAddress
from actors.runtime.telemetry import traceparent
from orchestration.errors import (
    Cancelled,
    DeadlineExceeded,
    ErrorBody,
    NobodyListens,
    NodeBusy,
    NodeLost,
    OrchestraError,
    from_body,
)
from orchestration.messages import Ended, NodeInfo, Priority
from orchestration.placement import free_slots, least_busy

log = logging.getLogger(__name__)

PLACED = Counter("orchestra_dispatcher_placed", "Generations sent to a node", ["model", "node"])
ENDED = Counter("orchestra_dispatcher_ended", "Generations settled", ["model", "outcome"])
WAITING = Gauge("orchestra_dispatcher_waiting", "Pulled and waiting for a free slot")
WAIT_SECONDS = Histogram("orchestra_dispatcher_wait_seconds", "From the pull to a node", ["model"])

RANK = {Priority.INTERACTIVE: 0, Priority.STANDARD: 1, Priority.BATCH: 2}


class Dispatcher(Actor):
    """Pulls, places, settles."""

    concurrency = 65_536  # bounded by the slots of the nodes: no more is pulled
    mailbox_size = 1

    def __init__(self, bus: Bus, registry: Registry, settings: DispatcherSettings) -> None:
        self.bus = bus
        self.registry = registry
        self.settings = settings
        self._queues = Queues(bus, self._pulled, max_models=settings.max_models)
        self._waiting: dict[str, list[tuple[int, int, Job]]] = defaultdict(list)
        self._jobs: dict[str, Job] = {}
        self._in_flight: dict[str, int] = defaultdict(int)
        self._on_node: dict[str, set[asyncio.Future[Message]]] = defaultdict(set)
        self._cancelled: OrderedDict[str, None] = OrderedDict()
        self._arrivals = itertools.count()
        self._cancels: Subscription | None = None
        self._loops: list[asyncio.Task[None]] = []
        self._view_changed = asyncio.Event()

    async def started(self) -> None:
        self._cancels = await self.bus.subscribe("cancel.*.*", self._cancel)
        self.registry.on_change.append(self._view_changed.set)
        self.registry.on_gone.append(self._node_gone)
        self._view_changed.set()
        loop = asyncio.get_running_loop()
        self._loops = [loop.create_task(self._follow_view()), loop.create_task(self._keep_alive())]

    async def stopped(self) -> None:
        for task in self._loops:
            task.cancel()
        self.registry.on_change.remove(self._view_changed.set)
        self.registry.on_gone.remove(self._node_gone)
        await self.leave()
        for job in [job for waiting in self._waiting.values() for _, _, job in waiting]:
            await job.delivery.nak()  # another dispatcher takes it
        if self._cancels is not None:
            await self._cancels.unsubscribe()

    async def leave(self) -> None:
        """Pull nothing more; what was pulled is finished."""
        await self._queues.stop()

    async def _follow_view(self) -> None:
        while True:
            await self._view_changed.wait()
            self._view_changed.clear()
            try:
                await self._queues.serve(list(self.registry.cards))
            except OrchestraError as error:
                log.warning("cannot pull yet: %s", error)
                await asyncio.sleep(1)
                self._view_changed.set()
            for model in list(self._waiting):
                self._place(model)
            self._ask_for_more()

    def _room(self, model: str) -> int:
        free = sum(free_slots(n, self._in_flight[n.id]) for n in self.registry.serving(model))
        return max(0, free - len(self._waiting[model]))

    def _ask_for_more(self) -> None:
        self._queues.ask(self._room)

    def _pulled(self, delivery: Delivery) -> None:
        job = Job.of(delivery)
        job.cancelled = job.id in self._cancelled
        self._jobs[job.id] = job
        self._wait(job)

    def _wait(self, job: Job) -> None:
        model = job.queue.model
        heapq.heappush(self._waiting[model], (RANK[job.queue.priority], next(self._arrivals), job))
        self._place(model)

    def _place(self, model: str) -> None:
        """Start waiting generations of `model` while a node has room; settle those nobody wants."""
        waiting = self._waiting[model]
        serving = self.registry.serving(model) if waiting else []
        while waiting:
            job = waiting[0][2]
            if job.cancelled or job.expired:
                heapq.heappop(waiting)
                why = Cancelled("the caller left") if job.cancelled else DeadlineExceeded("no slot in time")
                self.me.tell(Settle(job, why), _trace_only(job))
                continue
            node = least_busy(serving, self._in_flight)
            if node is None:
                break
            heapq.heappop(waiting)
            self._in_flight[node.id] += 1
            self.me.tell(Place(job, node), _trace_only(job))
        WAITING.set(sum(len(jobs) for jobs in self._waiting.values()))

    async def on_settle(self, message: Settle) -> None:
        await self._settle(message.job, message.error)

    async def on_place(self, message: Place) -> None:
        """Send the generation to its node, on to the next one while nothing was written, and settle."""
        job, node = message.job, message.node
        job.task = asyncio.current_task()
        WAIT_SECONDS.labels(job.queue.model).observe(time.monotonic() - job.pulled_at)
        tried: set[str] = set()
        error: OrchestraError | None = None
        try:
            while True:
                tried.add(node.id)
                try:
                    error = await self._run_on(node, job)
                finally:
                    self._in_flight[node.id] -= 1
                other = self._next_node(job, error, tried)
                if other is None:
                    break
                node = other
                self._in_flight[node.id] += 1
        except asyncio.CancelledError:
            error = Cancelled("the caller left")
        job.task = None
        try:
            await self._settle(job, error)
        finally:
            self._place(job.queue.model)
            self._ask_for_more()

    def _next_node(self, job: Job, error: OrchestraError | None, tried: set[str]) -> NodeInfo | None:
        if error is None or not error.retryable or isinstance(error, NodeLost):
            return None
        if len(tried) >= self.settings.attempts:
            return None
        serving = self.registry.serving(job.queue.model)
        return least_busy(serving, self._in_flight, without=frozenset(tried))

    async def _run_on(self, node: NodeInfo, job: Job) -> OrchestraError | None:
        """None when the node ended the stream itself, whatever its end; the error otherwise."""
        PLACED.labels(job.queue.model, node.id).inc()
        envelope = job.envelope.under(traceparent(job.envelope.trace))
        try:
            remaining = envelope.remaining(DEFAULT_DEADLINE_S)
            answer = asyncio.ensure_future(
                self.bus.request(
                    NodeAddress(node.id).generate,
                    job.delivery.message.data,
                    timeout=remaining,
                    headers=envelope.headers(),
                )
            )
            self._on_node[node.id].add(answer)
            try:
                message = await answer
            finally:
                self._on_node[node.id].discard(answer)
                answer.cancel()
        except NobodyListens:
            return NobodyListens(f"node {node.id} does not answer")
        except OrchestraError as error:
            return error
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            return NodeLost(f"node {node.id} died while it worked on the answer")
        return from_body(ErrorBody.model_validate_json(message.data)) if message.header(ERROR) else None

    async def _settle(self, job: Job, error: OrchestraError | None) -> None:
        """Tell the asker of an error nobody else has told it, and acknowledge the message."""
        if isinstance(error, NodeBusy) and not job.cancelled and not job.expired:
            # Every node was full after all. Not given back to the queue: that would use up a delivery.
            asyncio.get_running_loop().call_later(self.settings.busy_pause_s, self._wait, job)
            return
        self._jobs.pop(job.id, None)
        ENDED.labels(job.queue.model, error.code if error else "ok").inc()
        if error is not None and not isinstance(error, Cancelled):
            ended = Ended(seq=OUT_OF_BAND, finish_reason="error", model=job.queue.model, error=error.body())
            await self.bus.publish(StreamAddress(job.id).subject, ended.model_dump_json().encode())
        await job.delivery.ack()

    def _node_gone(self, node_id: str) -> None:
        for answer in list(self._on_node.pop(node_id, ())):
            answer.cancel()

    def _cancel(self, message: Message) -> None:
        job_id = StreamAddress.parse(message.subject).id
        job = self._jobs.get(job_id)
        if job is None:  # perhaps still in the queue
            self._cancelled[job_id] = None
            if len(self._cancelled) > self.settings.remembered_cancels:
                self._cancelled.popitem(last=False)
            return
        job.cancelled = True
        if job.task is None:
            self._place(job.queue.model)

    async def _keep_alive(self) -> None:
        """Keep what was pulled from redelivery; settle what waited past its deadline."""
        while True:
            await asyncio.sleep(self.settings.keep_alive_s)
            for job in list(self._jobs.values()):
                try:
                    await job.delivery.in_progress()
                except OrchestraError as error:
                    log.debug("cannot extend %s: %s", job.id, error)
            for model in list(self._waiting):
                self._place(model)
            self._ask_for_more()


def _trace_only(job: Job) -> Envelope:
    """The deadline is left out: the dispatcher itself settles a job that is late."""
    return Envelope(trace=job.envelope.trace)
