"""Consumes the queue of runs for a coordinator.

It pulls as many runs and jobs of each priority as the coordinator has room for, reports progress so that they
are not delivered again, and has their completion acknowledge them.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter
from collections.abc import Coroutine
from functools import partial
from typing import Any

from pydantic import ValidationError

from actors.agents.active_runs import ActiveRuns
from actors.agents.metrics import RUNS, RUNS_IN_PROGRESS, pattern_label
from actors.agents.run_completion import JobCompletion, RunCompletion
from actors.agents.run_event_history import RunEventHistory
from actors.agents.settings import AgentsSettings
from actors.bus.bus import Bus
from actors.bus.cancel_registry import CancelRegistry
from actors.bus.jetstream import Delivery, Puller
from actors.bus.subjects import RunQueue, StreamAddress, is_work_id
from actors.cluster.orders import OrderBook
from actors.jobs.attempts import JobAttempts
from actors.jobs.dead_letters import dead_letter, dead_letter_delivery
from actors.jobs.records import QueuedJob, decode_queue_message
from actors.jobs.settings import JobsSettings
from actors.runtime.actor_host import ActorRef
from actors.runtime.envelope import Envelope
from actors.runtime.failures import UNEXPECTED_ERRORS, internal_error
from actors.runtime.service import invalid_request
from actors.streams.client import ID_HEADER
from actors.streams.handoff import RemoteReader
from orchestration.errors import Cancelled, InternalError, OrchestraError
from orchestration.messages import Finish, Priority, Run, RunEnd, StreamPosition, Work, encode_event
from orchestration.patterns import BUILT_IN, Catalogue

log = logging.getLogger(__name__)


class RunConsumer:
    """Gives runs and jobs from the queue to the coordinator `ref`."""

    def __init__(
        self,
        bus: Bus,
        ref: ActorRef,
        settings: AgentsSettings,
        jobs: JobsSettings | None = None,
        catalogue: Catalogue = BUILT_IN,
        orders: OrderBook | None = None,
    ) -> None:
        """`orders` say whether an operator has paused the queue of runs."""
        self.bus = bus
        self.ref = ref
        self.orders = orders
        self.settings = settings
        self.jobs = jobs or JobsSettings()
        self.catalogue = catalogue
        self.job_attempts = JobAttempts(bus, self.jobs)
        self.run_event_history = RunEventHistory(bus)
        self.open: dict[str, RunCompletion] = {}
        self.active_runs = ActiveRuns(bus, self.open)
        self._active: Counter[Priority] = Counter()
        self._pullers: dict[Priority, Puller] = {}
        self._orders_changed = asyncio.Event()
        self._pulls_too_much = False
        self._pulling: asyncio.Task[None] | None = None
        self._cancels = CancelRegistry(bus, self._cancel, limit=settings.remembered_cancels)
        self._keeping: asyncio.Task[None] | None = None
        self._settling: set[asyncio.Task[None]] = set()
        self._recovering: dict[str, Delivery] = {}
        """Runs whose readers are asked how much they have, by id."""

    async def start(self) -> None:
        await self._cancels.start()
        await self.run_event_history.start()
        await self.active_runs.start()
        self._keeping = asyncio.get_running_loop().create_task(self._keep_alive())
        if self.orders is not None:
            self.orders.on_change.append(self._orders_changed.set)
        await self._follow_order()
        self._pulling = asyncio.get_running_loop().create_task(self._follow_orders())

    def update_settings(self, settings: AgentsSettings) -> None:
        """Use other settings from now on. With a lower `concurrency`, what the server was asked for under the
        higher one goes back to the queue."""
        self._pulls_too_much = settings.concurrency < self.settings.concurrency
        self.settings = settings
        if self._pulls_too_much:
            self._orders_changed.set()
        for priority in self._pullers:
            self._pull(priority)

    async def leave(self) -> None:
        """Pull no more runs. Runs that have begun go on."""
        if self._pulling is not None:
            self._pulling.cancel()
            await asyncio.wait([self._pulling])
        if self.orders is not None and self._orders_changed.set in self.orders.on_change:
            self.orders.on_change.remove(self._orders_changed.set)
        await self._stop_pulling()

    async def _follow_orders(self) -> None:
        while True:
            await self._orders_changed.wait()
            self._orders_changed.clear()
            try:
                await self._follow_order()
            except OrchestraError as error:  # NATS is away: once more after the next reading of the orders
                log.warning("cannot follow the orders for the queue of runs: %s", error)
                self._orders_changed.set()
                await self.bus.wait_connected(math.inf)

    async def _follow_order(self) -> None:
        """Pull runs, unless the queue is paused. A puller that stops has the server deliver nothing more."""
        paused = self.orders is not None and self.orders.runs_paused
        if paused or self._pulls_too_much:
            self._pulls_too_much = False
            await self._stop_pulling()
        if paused:
            return
        for priority in Priority:
            if priority not in self._pullers:
                deliver = partial(self._on_delivery, priority)
                puller = Puller(self.bus, RunQueue.STREAM, RunQueue.consumer(priority), deliver)
                await puller.start()
                self._pullers[priority] = puller
                self._pull(priority)

    async def _stop_pulling(self) -> None:
        pullers, self._pullers = self._pullers, {}
        for puller in pullers.values():
            await puller.stop()

    async def stop(self) -> None:
        """Stop everything. Call it when the coordinator has drained."""
        await self.leave()
        if self._keeping is not None:
            self._keeping.cancel()
        await self._cancels.stop()
        await self.active_runs.stop()
        if self._settling:
            await asyncio.wait(self._settling, timeout=2)
        await self.run_event_history.stop()

    def _pull(self, priority: Priority) -> None:
        puller = self._pullers.get(priority)
        if puller is not None:
            puller.request(max(0, self.settings.concurrency - self._active[priority]))

    def _on_delivery(self, priority: Priority, delivery: Delivery) -> None:
        run_id = delivery.message.header(ID_HEADER)
        try:
            queued = decode_queue_message(delivery.message.data)
        except ValidationError as error:
            self._in_background(priority, self._refuse(delivery, run_id, invalid_request(error)))
            return
        work = queued.work if isinstance(queued, QueuedJob) else queued
        present = self.open.get(work.id)
        if present is not None:  # the progress report came too late: settle the new delivery
            present.delivery = delivery
            return
        envelope = Envelope.from_headers(delivery.message.headers)
        if isinstance(queued, QueuedJob):
            self._on_job(priority, delivery, work, envelope)
        elif queued.id in self._cancels:
            self._drop(delivery, queued)
        elif delivery.attempt > 1:
            self._in_background(priority, self._recover(priority, delivery, queued, envelope))
        else:
            self._begin(priority, self._completion(delivery, queued, envelope))

    def _completion(
        self, delivery: Delivery, run: Run, envelope: Envelope, position: StreamPosition | None = None
    ) -> RunCompletion:
        label = pattern_label(run, self.catalogue)
        return RunCompletion(delivery, run, envelope, position, label=label, on_finish=self._finished)

    async def _recover(self, priority: Priority, delivery: Delivery, run: Run, envelope: Envelope) -> None:
        """Go on with a run that was delivered before, unless its coordinator is still writing.

        Finished steps are not repeated, and the text that the reader has stays. If the reader does not say
        how much it has, the run is delivered again after its ack_wait.
        """
        quiet_s, attempt = self.settings.takeover_quiet_s, delivery.attempt
        last = attempt > self.jobs.max_attempts
        self._recovering[run.id] = delivery
        try:
            while True:
                position = await RemoteReader(self.bus, run.id).position(quiet_s=quiet_s, attempt=attempt)
                if not position.alive:
                    break
                await asyncio.sleep(quiet_s / 3)
        except OrchestraError as error:
            if not last:
                raise
            log.warning("giving up run %s without knowing what was read of its stream: %s", run.id, error)
            position = StreamPosition()
        finally:
            self._recovering.pop(run.id, None)
        if position.superseded:
            return
        completion = self._completion(delivery, run, envelope, position)
        completion.execution.records.used = True  # perhaps by the coordinator before
        if not position.open:
            await completion.failed(Cancelled("the caller left"))
        elif last:
            await self._dead_letter(completion)
        else:
            completion.execution.known = await completion.execution.records.known()
            self._begin(priority, completion)

    def _on_job(self, priority: Priority, delivery: Delivery, work: Work, envelope: Envelope) -> None:
        """Begin a job. Its deadline is that of the attempt, not that of its submission."""
        timed = Envelope.within(self.jobs.attempt_timeout_s, trace=envelope.trace, caller=envelope.caller)
        label = pattern_label(work, self.catalogue)
        completion = JobCompletion(
            delivery, work, timed, self.job_attempts, label=label, on_finish=self._finished
        )
        self._count(priority, completion)
        self._in_background(priority, self._begin_job(completion))

    async def _begin_job(self, completion: JobCompletion) -> None:
        """Perform a job, unless its record says that there is nothing to do."""
        if not await completion.begin():
            return
        try:
            await completion.prepare()
            self._deliver(completion)
        except OrchestraError as error:
            await completion.failed(error)

    def _drop(self, delivery: Delivery, run: Run) -> None:
        """Acknowledge a run that was cancelled before it began. At once: others wait behind it."""
        self._cancels.forget(run.id)
        RUNS.labels(pattern_label(run, self.catalogue), Cancelled.code).inc()
        try:
            delivery.settle(b"+ACK")
        except OrchestraError as error:
            log.debug("cancelled run %s will be delivered again: %s", run.id, error)

    def _begin(self, priority: Priority, completion: RunCompletion) -> None:
        if completion.execution.work.id in self._cancels:
            self._in_background(priority, completion.failed(Cancelled("the caller left")))
            return
        try:
            self._deliver(completion)
        except OrchestraError as error:
            log.warning("run %s goes back to the queue: %s", completion.execution.work.id, error)
            completion.execution.writer.close()
            self._in_background(priority, completion.delivery.nak(1))
            return
        self._count(priority, completion)

    def _deliver(self, completion: RunCompletion) -> None:
        execution = completion.execution
        completion.invocation = self.ref.deliver(execution, completion, execution.envelope)

    def _count(self, priority: Priority, completion: RunCompletion) -> None:
        completion.priority = priority
        self.open[completion.execution.work.id] = completion
        self.run_event_history.begin(completion.execution.run_events)
        self._active[priority] += 1
        RUNS_IN_PROGRESS.labels(priority).set(self._active[priority])

    def _finished(self, completion: RunCompletion) -> None:
        """Called by a completion when its run has ended, however it ended."""
        self.run_event_history.end(completion.execution.run_events)
        if self.open.get(completion.execution.work.id) is completion:
            del self.open[completion.execution.work.id]
        if completion.priority is not None:
            self._active[completion.priority] -= 1
            RUNS_IN_PROGRESS.labels(completion.priority).set(self._active[completion.priority])
            self._pull(completion.priority)

    async def _refuse(self, delivery: Delivery, run_id: str, error: OrchestraError) -> None:
        log.warning("refused a run that cannot be read: %s", error)
        if is_work_id(run_id):
            end = RunEnd(finish=Finish(reason="error"), error=error.body())
            await self.bus.publish(StreamAddress(run_id).subject, encode_event(0, end))
        await dead_letter(
            self.bus, delivery.message, reason=error.message, attempts=delivery.attempt, error=error.body()
        )
        await delivery.terminate(error.code)

    @staticmethod
    async def _dead_letter(completion: RunCompletion) -> None:
        """Give up a run that ended the process of each coordinator that had it."""
        tried = completion.delivery.attempt - 1
        error = InternalError(f"given up after {tried} attempts: none of the coordinators came to an end")
        await dead_letter_delivery(completion.delivery, error)
        await completion.failed(error)

    def _in_background(self, priority: Priority, settle: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._settle(priority, settle))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settle(self, priority: Priority, settle: Coroutine[Any, Any, None]) -> None:
        try:
            await settle
        except OrchestraError as error:
            log.warning("could not settle a run; it will be delivered again: %s", error)
        except UNEXPECTED_ERRORS as error:
            internal_error("the settling of a run, which will be delivered again,", error, "RunConsumer")
        finally:
            self._pull(priority)

    def _cancel(self, run_id: str, at_ns: int) -> bool:
        completion = self.open.get(run_id)
        if completion is None:
            return False
        completion.cancel(at_ns)
        return True

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self.settings.keep_alive_s)
            deliveries = {work_id: completion.delivery for work_id, completion in self.open.items()}
            for work_id, delivery in (deliveries | self._recovering).items():
                try:
                    await delivery.in_progress()
                except OrchestraError as error:
                    log.debug("cannot keep run %s: %s", work_id, error)
            for priority in Priority:
                self._pull(priority)
