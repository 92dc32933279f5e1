"""Takes generations off the queue when a node has room, places them, and settles them.

The backlog stays in JetStream: a dispatcher pulls what the nodes it sees could start, and a little more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass
from typing import Any

from actors.bus.bus import Bus
from actors.bus.cancel_registry import CancelRegistry
from actors.bus.jetstream import Delivery
from actors.bus.subjects import StreamAddress
from actors.cluster.registry import Registry
from actors.dispatcher import migration
from actors.dispatcher.arrival_reporter import ArrivalReporter
from actors.dispatcher.explainer import Explainer
from actors.dispatcher.failover import Failover
from actors.dispatcher.fallbacks import Fallbacks
from actors.dispatcher.hedger import Hedger
from actors.dispatcher.hung_nodes import HungNodes
from actors.dispatcher.in_flight import InFlight
from actors.dispatcher.job import Job, PlaceJob, RecoverJob, RefuseJob, UseFallback
from actors.dispatcher.metrics import WAITING, ended, wait_seconds
from actors.dispatcher.node_client import NodeClient
from actors.dispatcher.node_health import NodeHealthMonitor
from actors.dispatcher.pending_queue import PendingQueue
from actors.dispatcher.placer import Placer
from actors.dispatcher.prewarmer import Prewarmer
from actors.dispatcher.queues import Queues
from actors.dispatcher.settings import DispatcherSettings
from actors.dispatcher.slot_sharing import SlotSharing
from actors.dispatcher.snapshot import DispatcherSnapshot
from actors.runtime.actor import Actor
from actors.runtime.envelope import Envelope
from actors.streams.handoff import stream_position
from actors.streams.writer import OUT_OF_BAND
from orchestration.errors import (
    BusUnavailable,
    Cancelled,
    DeadlineExceeded,
    InternalError,
    NoNode,
    OrchestraError,
    ShuttingDown,
)
from orchestration.messages import Finish, GenerationEnd, NodeInfo, StreamPosition, encode_event

log = logging.getLogger(__name__)

OVERTAKE_WINDOW = 16
"""Waiting generations of a model, one of which may overtake those before it."""
MAX_PULLED_WHILE_LIMITED = 1024
"""Generations of each model that are pulled while all its servers ask to be left alone."""
PULL_INTERVAL_S = 0.005
"""Between two looks at every model's room: a finished generation makes room for other models too."""


class Dispatcher(Actor):
    """Pulls, places, settles."""

    concurrency = 65_536  # bounded by the slots of the nodes: no more is pulled
    mailbox_size = 65_536

    def __init__(self, bus: Bus, registry: Registry, settings: DispatcherSettings) -> None:
        self.bus = bus
        self.registry = registry
        self.settings = settings
        self.queues = Queues(bus, self._accept, max_models=settings.max_models)
        self._waiting = PendingQueue()
        self._in_flight = InFlight()
        self.placer = Placer(registry, self._in_flight, self._waiting, settings, self._place)
        self._node_client = NodeClient(bus, self._in_flight, self.placer, settings.first_output)
        self.hedger = Hedger(bus, self.placer, self._node_client, settings.hedging)
        self._failover = Failover(bus, self.placer, self.hedger, self._live_nodes, settings)
        self._explainer = Explainer(bus, self.placer)
        self._sharing = SlotSharing(bus, self._is_starving, self.placer.set_slot_share)
        self.node_health = NodeHealthMonitor(
            bus, interval_s=settings.ping_interval_s, misses=settings.ping_misses
        )
        self._fallbacks = Fallbacks(bus, self._live_nodes, settings.fallbacks, settings.busy_pause_s)
        self._arrival_reporter = ArrivalReporter(bus)
        self.prewarmer = Prewarmer(bus, registry, self._sharing.name, settings.warming)
        self._jobs: dict[str, Job] = {}
        self.hung_nodes = HungNodes(bus, self.placer, self._node_client, self._jobs)
        self._unsettled: list[tuple[Job, OrchestraError | None]] = []
        """GenerationEnd while NATS was away; settled when it is back."""
        self._cancels = CancelRegistry(bus, self._cancel, limit=settings.remembered_cancels)
        self._loops: list[asyncio.Task[None]] = []
        self._changed = asyncio.Event()
        self._leaving = False

    async def started(self) -> None:
        await self._cancels.start()
        self.placer.start()
        await self._explainer.start()
        await self._sharing.start()
        self._arrival_reporter.start()
        await self.prewarmer.start()
        self.registry.on_change.append(self._changed.set)
        self.registry.on_gone.append(self._in_flight.fail_node)
        self.registry.on_gone.append(self.node_health.remove)
        self.node_health.on_silent = [self.placer.mark_silent, self._in_flight.fail_node]
        self.node_health.on_reconnect = [self._in_flight.fail_disconnected]
        self.node_health.on_back = [self.placer.mark_responsive, lambda _: self._changed.set()]
        self.bus.on_reconnect += [self._settle_pending, self._extend_ack_wait]
        self._changed.set()
        self._loops = [
            self.run_loop(self._follow_registry()),
            self.run_loop(self._keep_alive()),
            self.run_loop(self.hung_nodes.run()),
            self.run_loop(self.node_health.watch(lambda: self._in_flight.counts)),
        ]

    async def stopped(self) -> None:
        for task in self._loops:
            task.cancel()
        for callbacks, callback in (
            (self.registry.on_change, self._changed.set),
            (self.bus.on_reconnect, self._settle_pending),
            (self.bus.on_reconnect, self._extend_ack_wait),
        ):
            if callback in callbacks:
                callbacks.remove(callback)
        for gone in (self._in_flight.fail_node, self.node_health.remove):
            if gone in self.registry.on_gone:
                self.registry.on_gone.remove(gone)
        await self.leave()
        self.placer.stop()
        await self._explainer.stop()
        await self._sharing.stop()
        self._arrival_reporter.stop()
        await self.prewarmer.stop()
        await self._cancels.stop()

    async def leave(self) -> None:
        """Pull nothing more, and give back what waits; what is on a node is finished."""
        self._leaving = self._failover.leaving = True
        await self.queues.stop()
        for job in [job for job in self._jobs.values() if not job.on_node]:
            self._give_back(job)
        WAITING.set(len(self._waiting))

    def _give_back(self, job: Job) -> None:
        job.settled = True
        job.stop_timer()
        self._waiting.remove(job)
        del self._jobs[job.id]
        try:
            job.delivery.settle(b"-NAK")
        except BusUnavailable as error:
            log.debug("generation %s comes back after its ack_wait: %s", job.id, error)

    async def _follow_registry(self) -> None:
        while True:
            await self._changed.wait()
            self._changed.clear()
            if not await self.queues.serve(self.registry.cards.keys() | self._fallbacks.replaced_models):
                asyncio.get_running_loop().call_later(1, self._changed.set)
            for model in self._waiting.models:
                self._place(model)
            self.queues.pull(self._room_by_priority)
            await asyncio.sleep(PULL_INTERVAL_S)

    def _room_by_priority(self, model: str) -> list[int]:
        """How many more to pull of each priority: for each free slot one, and some for those free next.

        What is less urgent does not count, or a backlog of batch work would get as much as one of
        interactive work. One of each waits here all the same, for its turn.
        """
        served = self._fallbacks.serving_model(model)
        free, slots = self.placer.room(served)
        # Who cannot wait for servers that ask to be left alone hears so only here.
        ahead = MAX_PULLED_WHILE_LIMITED if self.placer.is_limited(served) else self._max_ahead(slots)
        counts_of, cumulative_counts = self._waiting.counts_of(model), self._waiting.cumulative_counts(model)
        return [
            max(0, max(free, ahead) - waiting, min(ahead, 1) - own)
            for own, waiting in zip(counts_of, cumulative_counts, strict=True)
        ]

    def snapshot(self) -> DispatcherSnapshot:
        """What this dispatcher has and knows now."""
        pulled_at = [job.pulled_at for job in self._jobs.values() if job.waits]
        return DispatcherSnapshot(
            name=self._sharing.name,
            generations=frozenset(self._jobs),
            waiting={model: tuple(self._waiting.counts_of(model)) for model in self._waiting.models},
            longest_wait_s=time.monotonic() - min(pulled_at) if pulled_at else 0.0,
            running=dict(self._in_flight.counts),
            pending_answers=self._in_flight.pending_answers,
            unsettled=len(self._unsettled),
            cancelled=self._cancels.ids,
            pulled_models=self.queues.models,
            silent_nodes=frozenset(self.node_health.silent),
            peers=self._sharing.count - 1,
            starving=self._is_starving(),
            prewarm_leader=self.prewarmer.is_leader,
        )

    def _is_starving(self) -> bool:
        """Whether work waits here for long, and not because all are busy: this dispatcher has less than half
        of its share of the slots. To keep to shares costs capacity, which at full load nobody gets back."""
        since = time.monotonic() - self.settings.starving_s
        late = {job.queue.model for job in self._jobs.values() if job.waits and job.pulled_at < since}
        return any(self._is_short_of_slots(model) for model in late)

    def _is_short_of_slots(self, model: str) -> bool:
        counts = self._in_flight.counts
        mine = sum(counts.get(node.id, 0) for node in self.registry.serving(model))
        return 2 * mine * self._sharing.count < self.placer.room(model)[1]

    def _max_ahead(self, slots: int) -> int:
        return min(self.settings.pulled_ahead, (slots + 1) // 2)

    def _live_nodes(self, model: str) -> set[str]:
        """The nodes that serve it and answer."""
        return {node.id for node in self.registry.serving(model)} - self.node_health.silent

    def _accept(self, delivery: Delivery) -> None:
        try:
            job = Job.from_delivery(delivery)
        except ValueError as error:
            log.warning("a message on %s is not a generation: %s", delivery.message.subject, error)
            delivery.settle(b"+TERM not a generation")
            return
        present = self._jobs.get(job.id)
        if present is not None:  # NATS gave up on our keep-alive: settle the delivery that counts now
            present.delivery = delivery
            return
        self._jobs[job.id] = job
        job.cancelled = job.id in self._cancels
        if job.cancelled or job.expired:  # in bulk: its place in the queue and here is free at once
            self._end_unplaced(job)
            return
        if delivery.attempt > 1:
            self._schedule(RecoverJob(job))
            return
        self._failover.budget.deposit()
        self._arrival_reporter.count(job.queue.model, job.envelope)
        job.refusals_before = self.placer.refusals(job.queue.model)
        self._enqueue(job)

    async def on_recover_job(self, message: RecoverJob) -> None:
        """Go on with a generation that was pulled before, unless its node lives and writes on.

        Its dispatcher may have died, or gave it back. Where nobody can say what was read, it is run again
        from its beginning: the asker reads one writer only.
        """
        job = message.job
        if job.delivery.attempt > self.settings.deliveries:
            self._settle(job, await migration.dead_letter_job(job))
            return
        try:
            position = await stream_position(
                self.bus,
                job.id,
                quiet_s=self.settings.takeover_quiet_s,
                attempt=job.delivery.attempt,
            )
        except OrchestraError as error:
            log.info("generation %s begins again: %s", job.id, error)
            position = StreamPosition()
        if job.settled:
            return
        if position.superseded:
            job.superseded = True
            self._settle(job, None)
            return
        if position.alive:
            job.timer = asyncio.get_running_loop().call_later(
                self.settings.takeover_quiet_s / 3, lambda: self._schedule(RecoverJob(job))
            )
            return
        job.cancelled = job.cancelled or not position.open
        if position.writer:
            job.body = migration.with_continuation(job.delivery.message.data, position, job.queue.model)
        job.refusals_before = self.placer.refusals(job.queue.model)
        self._enqueue(job)

    def _enqueue(self, job: Job) -> None:
        """Put a job among the waiting, and place what can be placed."""
        job.stop_timer()
        if job.settled:
            return
        job.placed = False
        if self._leaving:
            self._give_back(job)
            return
        self._waiting.push(job)
        self._place(job.queue.model)
        if job.waits and self._refuse_limited([job]):  # however many wait before it
            return
        if job.waits and job.envelope.deadline:
            left = max(0.0, job.envelope.deadline - time.time())
            job.timer = asyncio.get_running_loop().call_later(left, self._withdraw, job)

    def _withdraw(self, job: Job) -> None:
        """Settle a job that is on no node and that nobody wants any more; another may come in its place."""
        job.stop_timer()
        self._waiting.remove(job)
        if job.settled:
            return
        self._end_unplaced(job)
        if not self._leaving:
            self.queues.pull_model(job.queue.model, self._room_by_priority)

    def _end_unplaced(self, job: Job) -> None:
        error: OrchestraError
        if job.cancelled and not job.expired:
            error = Cancelled("the caller left")
        elif self.placer.can_run(job):
            error = DeadlineExceeded("no slot was free before the deadline")
        else:
            error = NoNode(f"no live node serves {job.queue.model!r}{self.placer.labels_text(job)}")
        self._settle(job, error)

    def _place(self, model: str) -> None:
        """Start waiting generations of `model` while a node has room; settle those nobody wants."""
        while jobs := self._waiting.in_order(model, OVERTAKE_WINDOW):
            if unwanted := [job for job in jobs if job.cancelled or job.expired]:
                for job in unwanted:
                    self._withdraw(job)
                continue
            if self._refuse_limited(jobs):
                continue
            # With as many waiting as are pulled ahead there may be any number behind them: no time to lose.
            hurry = len(jobs) > 1 and len(jobs) > self._max_ahead(self.placer.room(model)[1]) // 2
            started = self.placer.start_one(jobs, hurry=hurry)
            if started is not None:
                self._start(*started)
            elif not self._live_nodes(model) and self._fallbacks.next(jobs[0]):
                self._waiting.remove(jobs[0])
                jobs[0].stop_timer()
                self._schedule(UseFallback(jobs[0]))
            elif self.placer.can_run(jobs[0]) or not self.registry.serving(model):
                break
            else:
                self._withdraw(jobs[0])
        WAITING.set(len(self._waiting))

    def _refuse_limited(self, jobs: list[Job]) -> bool:
        """End the wait of those that servers asking to be left alone will not answer in time."""
        refused = [(job, error) for job in jobs if (error := self.placer.refusal(job)) is not None]
        for job, error in refused:
            self._waiting.remove(job)
            job.stop_timer()
            self._schedule(RefuseJob(job, error))
        return bool(refused)

    def _start(self, job: Job, node: NodeInfo) -> None:
        self._waiting.remove(job)
        job.stop_timer()
        job.placed = True
        self._schedule(PlaceJob(job, node))

    async def on_use_fallback(self, message: UseFallback) -> None:
        """Put it among those that wait for the next of its models, or again for its own."""
        job = message.job
        await self._fallbacks.switch(job, NoNode(f"no live node serves {job.queue.model!r}"), waits=True)
        job.refusals_before = self.placer.refusals(job.queue.model)
        self._enqueue(job)

    async def on_refuse_job(self, message: RefuseJob) -> None:
        """Let the next of its models answer, or tell its asker what the servers said."""
        job = message.job
        if await self._fallbacks.switch(job, message.error, waits=False):
            job.refusals_before = self.placer.refusals(job.queue.model)
            self._enqueue(job)
        elif not job.settled:
            self._settle(job, message.error)
            self._refill(job.queue.model)

    async def on_place_job(self, message: PlaceJob) -> None:
        """Send the generation to its node, on to the next one when that fails or dies, and settle."""
        job = message.job
        wait_seconds(job.queue.model).observe(time.monotonic() - job.pulled_at)
        try:
            error, waits = await self._failover.run(job, message.node)
        except asyncio.CancelledError:
            self._node_client.stop(job)
            self._settle(job, ShuttingDown("the dispatcher was stopped before the answer was complete"))
            return
        if await self._fallbacks.switch(job, error, waits=waits):
            self._enqueue(job)
            return
        if waits and not job.cancelled and not job.expired:
            # No other node has room now. Not given back to the queue: that would use up a delivery.
            pause = self.settings.busy_pause_s
            job.timer = asyncio.get_running_loop().call_later(pause, self._enqueue, job)
            return
        self._settle(job, error)
        self._refill(job.queue.model)

    def _schedule(self, message: RecoverJob | PlaceJob | UseFallback | RefuseJob) -> None:
        """Go on with a job in a handler of its own. The deadline is left out: a job that is late is settled
        here."""
        job = message.job
        self.me.deliver(message, _JobFailure(self, job), Envelope(trace=job.envelope.trace))

    def failed(self, job: Job, error: OrchestraError) -> None:
        """A handler broke off in the midst of it."""
        if not job.settled:
            self._waiting.remove(job)
            self._settle(job, error)
            self._refill(job.queue.model)

    def _refill(self, model: str) -> None:
        if self._leaving:
            return
        self._place(model)
        self.queues.pull_model(model, self._room_by_priority)
        if len(self.queues.models) > 1:
            self._changed.set()

    def _settle(self, job: Job, error: OrchestraError | None) -> None:
        """Tell the asker of an error nobody else has told it, and acknowledge the message."""
        job.settled = True
        job.stop_timer()
        self._jobs.pop(job.id, None)
        self._cancels.forget(job.id)
        if job.superseded:
            log.info("generation %s is another dispatcher's by now", job.id)
            ended(job.queue.model, "superseded").inc()
            return
        ended(job.queue.model, error.code if error else "ok").inc()
        self._acknowledge(job, error)

    def _acknowledge(self, job: Job, error: OrchestraError | None) -> None:
        try:
            if error is not None and not isinstance(error, Cancelled):
                end = GenerationEnd(finish=Finish(reason="error", model=job.queue.model), error=error.body())
                self.bus.post(StreamAddress(job.id).subject, encode_event(OUT_OF_BAND, end))
            job.delivery.settle(b"+ACK")
        except BusUnavailable:
            self._unsettled.append((job, error))

    def _settle_pending(self) -> None:
        late, self._unsettled = self._unsettled, []
        for job, error in late:
            self._acknowledge(job, error)

    def _cancel(self, job_id: str) -> bool:
        job = self._jobs.get(job_id)
        if job is None:
            return False
        job.cancelled = True
        if not job.on_node:  # a node hears the cancel itself
            self._withdraw(job)
        return True

    async def _keep_alive(self) -> None:
        """Keep what was pulled from redelivery, and ask again for what a lost message would have brought."""
        while True:
            await asyncio.sleep(self.settings.keep_alive_s)
            self._extend_ack_wait()
            self._changed.set()

    def _extend_ack_wait(self) -> None:
        try:
            for job in self._jobs.values():
                job.delivery.settle(b"+WPI")
        except BusUnavailable as error:
            log.debug("cannot keep generations from redelivery: %s", error)


@dataclass(frozen=True, slots=True)
class _JobFailure:
    """The sink of what a dispatcher does with `job`: a defect there ends it, or it would wait for ever."""

    dispatcher: Dispatcher
    job: Job

    async def item(self, value: Any) -> None: ...

    async def done(self, value: Any) -> None: ...

    async def failed(self, error: OrchestraError) -> None:
        if isinstance(error, InternalError):
            self.dispatcher.failed(self.job, error)
