"""Pulls generations from the queues while nodes have free slots, places them on nodes, and settles them.

The backlog stays in JetStream: a dispatcher pulls what the nodes could start now, and a little more.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

from actors.bus.bus import Bus
from actors.bus.held_generations import HeldResponder
from actors.bus.jetstream import Delivery
from actors.cluster.registry import Registry
from actors.dispatcher.explainer import Explainer
from actors.dispatcher.fallbacks import Fallbacks
from actors.dispatcher.job_table import JobTable, dead_letter_job
from actors.dispatcher.metrics import WAITING, wait_seconds
from actors.dispatcher.prewarmer import Prewarmer
from actors.dispatcher.pull_window import PullWindow
from actors.dispatcher.pulled_job import JobFailure, PlaceJob, PulledJob, RecoverJob, RefuseJob, UseFallback
from actors.dispatcher.queues import Queues
from actors.dispatcher.settings import DispatcherSettings
from actors.dispatcher.slot_sharing import SlotSharing
from actors.dispatcher.snapshot import DispatcherSnapshot
from actors.dispatcher.waiting_control import WaitingControl
from actors.placement.arrival_reporter import ArrivalReporter
from actors.placement.backlog import BacklogReporter
from actors.placement.executor import Executor
from actors.placement.generation_log import record_unplaced
from actors.placement.pending_queue import PendingQueue
from actors.runtime.actor import Actor
from actors.runtime.envelope import Envelope
from orchestration.errors import (
    Cancelled,
    DeadlineExceeded,
    NodeBusy,
    NoNode,
    OrchestraError,
    ShuttingDown,
)
from orchestration.messages import NodeInfo

OVERTAKE_WINDOW = 16
"""Number of waiting generations of a model among which a later one may start first."""
PULL_INTERVAL_S = 0.005
"""Minimum time between two rounds of pulling for all models: a finished generation makes room for other
models too."""


class Dispatcher(Actor):
    """Pulls generations, places them on nodes, and settles them."""

    concurrency = 65_536  # in fact limited by the slots of the nodes, because no more is pulled
    mailbox_size = 65_536

    def __init__(self, bus: Bus, registry: Registry, settings: DispatcherSettings) -> None:
        self.bus = bus
        self.registry = registry
        self.settings = settings
        self._change_event = asyncio.Event()
        self.queues = Queues(
            bus, self._accept, max_models=settings.max_models, on_first=self._change_event.set
        )
        self._jobs = JobTable(bus, self._withdraw, max_cancels=settings.remembered_cancels)
        self._waiting: PendingQueue[PulledJob] = PendingQueue()
        self.executor = Executor(
            bus, registry, settings, self._jobs.jobs, self._waiting, self._place, "dispatcher"
        )
        self.placer = self.executor.placer
        self._waiting_control = WaitingControl(bus, self._jobs, self._end_waiting)
        self._explainer = Explainer(bus, self.placer)
        self._sharing = SlotSharing(bus, self._is_starving, self.placer.set_slot_share)
        self._backlog = BacklogReporter(
            bus,
            self._sharing.name,
            lambda model: any(self._waiting.counts_of(model)),
            self._other_ended,
            self.placer.model_scheduler.with_rivals,
        )
        self._held = HeldResponder(bus, self._sharing.name, self._jobs.waiting, lambda: self._sharing.count)
        self._fallbacks = Fallbacks(bus, self.executor.live_nodes, settings.fallbacks, settings.busy_pause_s)
        self._window = PullWindow(self._waiting, self.executor, self._fallbacks, settings.pulled_ahead)
        self._arrival_reporter = ArrivalReporter(bus)
        self.prewarmer = Prewarmer(bus, registry, self._sharing.name, settings.warming)
        self._loops: list[asyncio.Task[None]] = []
        self._leaving = False

    def update_settings(self, settings: DispatcherSettings) -> None:
        """Use other settings from now on."""
        self.settings = settings
        self.executor.update_settings(settings)
        self._fallbacks.fallbacks, self._fallbacks.pause_s = settings.fallbacks, settings.busy_pause_s
        self._window.pulled_ahead = settings.pulled_ahead
        self.prewarmer.settings = settings.warming
        self._change_event.set()

    async def started(self) -> None:
        await self._jobs.start()
        await self.queues.start()
        loops = await self.executor.start()
        self.executor.node_health.on_back.append(lambda _: self._change_event.set())
        for part in (self._explainer, self._waiting_control, self._sharing, self._backlog, self._held):
            await part.start()
        await self.prewarmer.start()
        self.registry.on_change.append(self._change_event.set)
        self.registry.orders.on_change.append(self._change_event.set)
        self._change_event.set()
        self._loops = [self.run_loop(loop) for loop in (self._follow_registry(), self._keep_alive(), *loops)]

    async def stopped(self) -> None:
        for task in self._loops:
            task.cancel()
        for callbacks in (self.registry.on_change, self.registry.orders.on_change):
            if self._change_event.set in callbacks:
                callbacks.remove(self._change_event.set)
        await self.leave()
        for part in (self._backlog, self._held, self.executor, self._explainer, self._waiting_control):
            await part.stop()
        await self._sharing.stop()
        self._arrival_reporter.stop()
        await self.prewarmer.stop()
        await self._jobs.stop()

    async def leave(self) -> None:
        """Stop pulling and return waiting generations to the queue; nodes finish what they have."""
        self._leaving = self.executor.failover.leaving = True
        await self.queues.stop()
        for job in [job for job in self._jobs if not job.on_node]:
            self._give_back(job)
        WAITING.set(len(self._waiting))

    def _give_back(self, job: PulledJob) -> None:
        self._waiting.remove(job)
        self._jobs.give_back(job)

    async def _follow_registry(self) -> None:
        while True:
            await self._change_event.wait()
            self._change_event.clear()
            models = self.registry.cards.keys() | self._fallbacks.replaced_models
            if not await self.queues.serve(models, self._paused):
                asyncio.get_running_loop().call_later(1, self._change_event.set)
            for model in self._waiting.models:
                self._place(model)
            self.queues.pull(self._window.room_by_priority)
            await asyncio.sleep(PULL_INTERVAL_S)

    @property
    def _paused(self) -> frozenset[str]:
        """The models of which an operator lets no generation begin. What was pulled before waits here."""
        return self.registry.orders.paused_models

    def snapshot(self) -> DispatcherSnapshot:
        """The current state of this dispatcher."""
        received_at = [job.received_at for job in self._jobs if job.waits]
        return DispatcherSnapshot(
            name=self._sharing.name,
            generations=frozenset(self._jobs.jobs),
            waiting={model: tuple(self._waiting.counts_of(model)) for model in self._waiting.models},
            longest_wait_s=time.monotonic() - min(received_at) if received_at else 0.0,
            running=dict(self.executor.in_flight.counts),
            pending_answers=self.executor.in_flight.pending_answers,
            unsettled=self._jobs.unsettled,
            cancelled=self._jobs.cancels.ids,
            pulled_models=self.queues.models,
            silent_nodes=frozenset(self.executor.node_health.silent),
            peers=self._sharing.count - 1,
            starving=self._is_starving(),
            prewarm_leader=self.prewarmer.is_leader,
        )

    def _is_starving(self) -> bool:
        """Whether work has waited here for `starving_s` while this dispatcher has less than half of its share
        of the slots. Keeping to shares costs capacity, so it is done only then, and not because all nodes are
        busy."""
        models = {job.model for job in self._jobs.waiting_longer_than(self.settings.starving_s)}
        return any(
            self._window.is_short_of_slots(model, self._sharing.count) for model in models - self._paused
        )

    def _accept(self, delivery: Delivery) -> None:
        job = self._jobs.add(delivery)
        if job is None:
            return
        if job.cancelled or job.expired:  # there may be many: free their places at once
            self._end_unplaced(job)
            return
        if delivery.attempt > 1:
            self._schedule(RecoverJob(job))
            return
        job.refusals_before = self.placer.refusals(job.model)
        if (error := job.direct_error) is not None:  # its nodes have failed
            self._schedule(RefuseJob(job, error))
            return
        if not job.was_direct:  # else it is counted already
            self.executor.failover.budget.deposit()
            self._arrival_reporter.count(job.model, job.envelope)
        self._enqueue(job)

    async def on_recover_job(self, message: RecoverJob) -> None:
        """Continue a generation of an earlier delivery, unless its node is still writing. Its dispatcher may
        have died, or has returned it to the queue."""
        job = message.job
        if job.attempt > self.settings.deliveries:
            self._jobs.settle(job, await dead_letter_job(job))
            return
        position = await job.position(self.settings.takeover_quiet_s)
        if job.settled:
            return
        if position.superseded:
            job.superseded = True
            self._jobs.settle(job, None)
            return
        if position.alive:
            job.start_timer(self.settings.takeover_quiet_s / 3, self._schedule, RecoverJob(job))
            return
        job.continue_at(position)
        job.refusals_before = self.placer.refusals(job.model)
        self._enqueue(job)

    def _enqueue(self, job: PulledJob) -> None:
        """Add a job to the waiting ones, and place what can be placed."""
        job.stop_timer()
        if job.settled:
            return
        job.placed = False
        if self._leaving:
            self._give_back(job)
            return
        self._waiting.push(job)
        self._place(job.model)
        if job.waits and self._refuse_limited([job]):  # also when others wait before it
            return
        if job.waits and job.envelope.deadline:
            left = max(0.0, job.envelope.deadline - time.time())
            job.start_timer(left, self._withdraw, job)

    def _other_ended(self, node: str) -> None:
        """A direct call has ended on `node`."""
        self.placer.other_ended(node)
        for model in self._waiting_for([node]):
            self._refill(model)

    def _withdraw(self, job: PulledJob) -> None:
        """Settle a job that is on no node and was cancelled, has expired or cannot run; pull another one
        instead."""
        job.stop_timer()
        self._waiting.remove(job)
        if job.settled:
            return
        self._end_unplaced(job)
        if not self._leaving:
            self.queues.pull_model(job.model, self._window.room_by_priority)

    def _end_waiting(self, job: PulledJob, error: OrchestraError) -> None:
        """End a job that waits, by the order of an operator."""
        self._waiting.remove(job)
        record_unplaced(job, error)
        self._jobs.settle(job, error)
        WAITING.set(len(self._waiting))

    def _end_unplaced(self, job: PulledJob) -> None:
        error: OrchestraError
        if job.cancelled and not job.expired:
            error = Cancelled("the caller left")
        elif self.placer.can_run(job):
            error = DeadlineExceeded("no slot was free before the deadline")
        else:
            error = NoNode(f"no live node serves {job.model!r}{self.placer.labels_text(job)}")
        record_unplaced(job, error)
        self._jobs.settle(job, error)

    def _place(self, model: str) -> None:
        """Start waiting generations of `model` while nodes have free slots; settle cancelled and expired
        ones."""
        while jobs := self._waiting.in_order(model, OVERTAKE_WINDOW):
            if unwanted := [job for job in jobs if job.cancelled or job.expired]:
                for job in unwanted:
                    self._withdraw(job)
                continue
            if model in self._paused:
                break
            if self._refuse_limited(jobs):
                continue
            # With this many waiting here the queue may hold any number more: leave no slot free.
            hurry = len(jobs) > 1 and len(jobs) > self._window.max_ahead(model) // 2
            started = self.placer.start_one(jobs, hurry=hurry)
            if started is not None:
                self._start(*started)
            elif not self.executor.live_nodes(model) and self._fallbacks.next(jobs[0]):
                self._waiting.remove(jobs[0])
                jobs[0].stop_timer()
                self._schedule(UseFallback(jobs[0]))
            elif self.placer.can_run(jobs[0]) or not self.registry.serving(model):
                break
            else:
                self._withdraw(jobs[0])
        if any(self._waiting.counts_of(model)):
            self._backlog.note(model)
        WAITING.set(len(self._waiting))

    def _refuse_limited(self, jobs: list[PulledJob]) -> bool:
        """Refuse those of `jobs` that would wait too long for servers that refuse work; returns whether there
        were any."""
        refused = [(job, error) for job in jobs if (error := self.placer.refusal(job)) is not None]
        for job, error in refused:
            self._waiting.remove(job)
            job.stop_timer()
            self._schedule(RefuseJob(job, error))
        return bool(refused)

    def _start(self, job: PulledJob, node: NodeInfo) -> None:
        self._waiting.remove(job)
        job.stop_timer()
        job.placed = True
        self._schedule(PlaceJob(job, node))

    async def on_use_fallback(self, message: UseFallback) -> None:
        """Switch the job to its next fallback model if one is served, and enqueue it."""
        job = message.job
        await self._fallbacks.switch(job, NoNode(f"no live node serves {job.model!r}"), waits=True)
        job.refusals_before = self.placer.refusals(job.model)
        self._enqueue(job)

    async def on_refuse_job(self, message: RefuseJob) -> None:
        """Let the job's next fallback model answer, or end the job with the servers' error."""
        job = message.job
        if await self._fallbacks.switch(job, message.error, waits=False):
            job.refusals_before = self.placer.refusals(job.model)
            self._enqueue(job)
        elif not job.settled:
            self._jobs.settle(job, message.error)
            self._refill(job.model)

    async def on_place_job(self, message: PlaceJob) -> None:
        """Send the generation to its node, to the next one when that fails or dies, and settle it."""
        job = message.job
        wait_seconds(job.model).observe(job.queued_s + time.monotonic() - job.received_at)
        job.record_wait()
        try:
            error, waits = await self.executor.failover.run(job, message.node)
        except asyncio.CancelledError:
            self._jobs.settle(job, ShuttingDown("the dispatcher was stopped before the answer was complete"))
            return
        if await self._fallbacks.switch(job, error, waits=waits):
            self._enqueue(job)
            return
        if waits and not job.cancelled and not job.expired:
            # No other node has a free slot. Returning it to the queue would use up a delivery.
            self._backlog.note(job.model)
            if isinstance(error, NodeBusy):  # the node counts as full for a moment
                self._enqueue(job)
                return
            job.start_timer(self.settings.busy_pause_s, self._enqueue, job)
            return
        self._jobs.settle(job, error)
        self._refill(job.model, job.tried)

    def _schedule(self, message: RecoverJob | PlaceJob | UseFallback | RefuseJob) -> None:
        """Continue a job in a handler of its own. The envelope has no deadline, because expired jobs are
        settled here."""
        job = message.job
        self.me.deliver(message, JobFailure(job, self._failed), Envelope(trace=job.envelope.trace))

    def _failed(self, job: PulledJob, error: OrchestraError) -> None:
        """A handler has failed with a defect: end its job."""
        if not job.settled:
            self._waiting.remove(job)
            self._jobs.settle(job, error)
            self._refill(job.model)

    def _waiting_for(self, nodes: Iterable[str]) -> list[str]:
        """The models of `nodes` of which generations wait, the longest and most urgent wait first."""
        waiting = set(self._waiting.models)
        if not waiting:
            return []
        infos = [info for node in nodes if (info := self.registry.nodes.get(node)) is not None]
        models = waiting.intersection(card.name for info in infos for card in info.models)
        return self._waiting.most_urgent(models)

    def _refill(self, model: str, freed: Iterable[str] = ()) -> None:
        """Place generations that waited for the `freed` nodes and those of `model`, and pull more."""
        if self._leaving:
            return
        rivals = self._waiting_for(freed) if len(self._waiting.models) > 1 else ()
        for each in dict.fromkeys((*rivals, model)):  # else a model that is never idle would keep the slots
            self._place(each)
        self.queues.pull_model(model, self._window.room_by_priority)
        if len(self.queues.open) > 1:
            self._change_event.set()

    async def _keep_alive(self) -> None:
        """Keep pulled generations from redelivery, and repeat pull requests in case one was lost."""
        while True:
            await asyncio.sleep(self.settings.keep_alive_s)
            self._jobs.extend_ack_wait()
            self._change_event.set()
