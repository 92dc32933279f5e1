"""The direct path: a generation goes straight from its caller to a node with room, past the queue.

The caller watches over it as a dispatcher does over queued work, with the same code. A generation that finds
no room, or that no node can take in the end, goes to the queue.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, replace

from actors.bus.bus import Bus
from actors.cluster.registry import Registry
from actors.placement.arrival_reporter import ArrivalReporter
from actors.placement.backlog import BacklogMonitor
from actors.placement.executor import Executor
from actors.placement.job import Job, encoded
from actors.placement.metrics import direct, ended
from actors.placement.pending_queue import PendingQueue
from actors.placement.settings import PlacementSettings
from actors.runtime.envelope import Envelope
from actors.runtime.failures import internal_error
from actors.streams.client import Requeue
from actors.streams.handoff import LocalReader
from actors.streams.reader import StreamReader
from actors.telemetry.tracing import Scope, current_scope
from orchestration.errors import OrchestraError
from orchestration.messages import Generation, NodeInfo
from orchestration.placement import needs_of

log = logging.getLogger(__name__)

DEADLINE_MARGIN_S = 0.1
"""A node may end a generation this much before its caller's timer, by another clock."""
MAX_BUSY = 2
"""Number of nodes that may refuse a generation as busy; then it goes to the queue."""


@dataclass(slots=True, eq=False, kw_only=True)
class DirectJob(Job):
    """A generation on its way past the queue. `requeue` puts it on its queue after all."""

    stream: StreamReader
    requeue: Requeue
    task: asyncio.Task[None] | None = None
    requeued: bool = False
    """Whether it was put on its queue, or is about to be."""
    running: bool = False
    """Whether its task has begun."""


class DirectPath:
    """Places the generations of one process. Call `start` after that of the registry."""

    def __init__(self, bus: Bus, registry: Registry, settings: PlacementSettings) -> None:
        self.bus = bus
        self.orders = registry.orders
        self.settings = settings
        self.jobs: dict[str, DirectJob] = {}
        self.executor = Executor(bus, registry, settings, self.jobs, PendingQueue(), lambda model: None)
        self.executor.failover.max_busy = MAX_BUSY
        self.backlog = BacklogMonitor(bus)
        self._arrivals = ArrivalReporter(bus)
        self._queued: dict[str, dict[str, StreamReader]] = {}
        """The streams of this process whose generations are in a queue, by model and id, oldest first."""
        self._queued_models: dict[str, str] = {}
        self._loops: list[asyncio.Task[None]] = []

    def update_settings(self, settings: PlacementSettings) -> None:
        """Use other settings from now on."""
        self.settings = settings
        self.executor.update_settings(settings)

    async def start(self) -> None:
        await self.backlog.start()
        loop = asyncio.get_running_loop()
        self._loops = [loop.create_task(each) for each in await self.executor.start()]

    async def stop(self) -> None:
        """Nodes stop what they still have of this process."""
        tasks: list[asyncio.Task[None]] = []
        for job in self.jobs.values():
            if job.task is not None:
                self._cancel(job, job.task)
                tasks.append(job.task)
        for task in self._loops:
            task.cancel()
        if tasks or self._loops:
            await asyncio.wait([*tasks, *self._loops])
        await self.executor.stop()
        self._arrivals.stop()
        await self.backlog.stop()

    def begin(self, work: Generation, envelope: Envelope, stream: StreamReader, requeue: Requeue) -> bool:
        """Send `work` to a node with room. Returns False when it must go to its queue: nodes are full, others
        wait for them, or an operator has paused the queue."""
        if not self.settings.direct or not self.bus.connected or self._waits(work.model):
            direct(work.model, "queued").inc()
            return False
        job = DirectJob(
            id=work.id,
            model=work.model,
            priority=work.priority,
            envelope=envelope if envelope.attempt == 1 else replace(envelope, attempt=1),  # by no queue
            needs=needs_of(work),
            work=work,
            reader=LocalReader(stream),
            stream=stream,
            requeue=requeue,
            caller_is_here=True,
            scope=Scope(within=current_scope.get()),
        )
        node = self.executor.placer.start_directly(job)
        if node is None:
            direct(work.model, "queued").inc()
            return False
        direct(work.model, "placed").inc()
        stream.accepted = True  # this process sends it again if NATS loses it
        self.executor.failover.budget.deposit()
        self._arrivals.count(work.model, envelope)
        self.jobs[job.id] = job
        job.task = asyncio.get_running_loop().create_task(self._run(job, node))
        return True

    def queued(self, work: Generation, stream: StreamReader) -> None:
        """`work` was put on its queue: later generations of its model wait until it has begun."""
        self._queued.setdefault(work.model, {})[work.id] = stream
        self._queued_models[work.id] = work.model

    def close(self, work_id: str, *, ended: bool) -> bool:
        """The stream of a generation was closed: stop the generation unless it has `ended`. Returns whether
        the generation was on the direct path, and in no queue."""
        model = self._queued_models.pop(work_id, None)
        if model is not None and model in self._queued:
            self._queued[model].pop(work_id, None)
            if not self._queued[model]:
                del self._queued[model]
        job = self.jobs.get(work_id)
        if job is None or job.task is None:
            return False
        job.scope.close()
        if not ended:
            self._cancel(job, job.task)
        return not job.requeued

    def is_placed(self, work_id: str) -> bool:
        """Whether a generation is at a node, or on its way to one."""
        job = self.jobs.get(work_id)
        return job is not None and not job.requeued

    def _cancel(self, job: DirectJob, task: asyncio.Task[None]) -> None:
        job.cancelled = True
        if job.running:
            task.cancel()

    def _waits(self, model: str) -> bool:
        """Whether generations of `model` wait in a queue, or have to."""
        if model in self.orders.paused_models:
            return True
        own = self._queued.get(model)
        if own is not None:
            for work_id, stream in list(own.items()):
                if not stream.begun:
                    return True
                del own[work_id]
            del self._queued[model]
        return self.backlog.waits(model)

    async def _run(self, job: DirectJob, node: NodeInfo) -> None:
        """Send the generation to its node, to the next one when that fails or dies, and to the queue when no
        node is left that could take it now."""
        error: OrchestraError | None = None
        try:
            if job.cancelled:  # before this task began
                self.executor.placer.give_back(job, node.id)
                return
            job.running = True
            error, waits = await self.executor.failover.run(job, node)
            if error is None or job.cancelled:
                return
            if waits or (error.retryable and self.settings.fallbacks.get(job.model)):
                direct(job.model, "moved").inc()
                job.requeued = True
                await job.requeue(encoded(job.next_work), job.moves, None if waits else error)
            elif job.envelope.deadline - time.time() > DEADLINE_MARGIN_S or not job.envelope.deadline:
                job.stream.refuse(error)
            else:  # the stream fails by itself
                job.stream.refused = True
        except OrchestraError as failure:
            error, job.requeued = failure, False
            job.stream.fail(error)  # it may be on its queue nevertheless
        except Exception as failure:  # noqa: BLE001 - a defect ends one stream, which would wait otherwise
            error = internal_error(f"generation {job.id}", failure, "placement")
            job.stream.refuse(error)
        finally:
            del self.jobs[job.id]
            if not job.requeued:  # else it ends elsewhere, and its nodes had no slot free
                self._ended(job, error)

    def _ended(self, job: DirectJob, error: OrchestraError | None) -> None:
        """Report the outcome, and the free slots if others wait for them."""
        ended(job.model, error.code if error else "cancelled" if job.cancelled else "ok").inc()
        if self._waits(job.model):
            for node in job.tried:
                self.backlog.freed(node)
