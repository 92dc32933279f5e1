"""How runs come to a coordinator and are settled: pulled with a credit per priority, kept from redelivery
while they are at work, ended on their stream, acknowledged last."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter, OrderedDict
from collections.abc import Coroutine
from functools import partial
from typing import Any

from pydantic import ValidationError

from actors.agents.coordinator import PulledRun
from actors.agents.metrics import RUN_SECONDS, RUNS, RUNS_AT_WORK, pattern_label
from actors.agents.recorder import Recorder
from actors.agents.settings import AgentsSettings
from actors.asker import ID_HEADER
from actors.jobs.clerk import Clerk
from actors.jobs.dead import bury, bury_delivery
from actors.jobs.records import JobRecord, is_job
from actors.jobs.settings import JobsSettings
from actors.runtime.bus import Bus, Message, Subscription
from actors.runtime.envelope import Envelope
from actors.runtime.jetstream import Delivery, Puller
from actors.runtime.service import invalid
from actors.runtime.streams import StreamWriter
from actors.runtime.subjects import RunQueue, StreamAddress
from actors.runtime.system import ActorRef
from actors.runtime.telemetry import trace_id
from actors.runtime.work import Work
from orchestration.errors import Cancelled, Defect, NodeLost, OrchestraError, Stopped
from orchestration.messages import Ended, Priority, Run

log = logging.getLogger(__name__)


class Intake:
    """Feeds the coordinator `ref`."""

    def __init__(
        self, bus: Bus, ref: ActorRef, settings: AgentsSettings, jobs: JobsSettings | None = None
    ) -> None:
        self.bus = bus
        self.ref = ref
        self.settings = settings
        self.jobs = jobs or JobsSettings()
        self.clerk = Clerk(bus, self.jobs)
        self.open: dict[str, RunSink] = {}
        self._at_work: Counter[Priority] = Counter()
        self._pullers: dict[Priority, Puller] = {}
        self._cancelled: OrderedDict[str, None] = OrderedDict()
        self._cancels: Subscription | None = None
        self._keeping: asyncio.Task[None] | None = None
        self._settling: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        self._cancels = await self.bus.subscribe("cancel.*.*", self._cancel)
        self._keeping = asyncio.get_running_loop().create_task(self._keep_alive())
        for priority in Priority:
            puller = Puller(
                self.bus, RunQueue.STREAM, RunQueue.consumer(priority), partial(self._pulled, priority)
            )
            await puller.start()
            self._pullers[priority] = puller
            self._want(priority)

    async def leave(self) -> None:
        """Pull nothing more; what was pulled goes on."""
        pullers, self._pullers = self._pullers, {}
        for puller in pullers.values():
            await puller.stop()

    async def stop(self) -> None:
        """Call it when the coordinator has drained."""
        await self.leave()
        if self._keeping is not None:
            self._keeping.cancel()
        if self._cancels is not None:
            await self._cancels.unsubscribe()
        if self._settling:
            await asyncio.wait(self._settling, timeout=2)

    def _want(self, priority: Priority) -> None:
        puller = self._pullers.get(priority)
        if puller is not None:
            puller.want(max(0, self.settings.concurrency - self._at_work[priority]))

    def _pulled(self, priority: Priority, delivery: Delivery) -> None:
        run_id = delivery.message.header(ID_HEADER)
        try:
            run = Run.model_validate_json(delivery.message.data)
        except ValidationError as error:
            self._later(self._refuse(delivery, run_id, invalid(error)))
            return
        envelope = Envelope.from_headers(delivery.message.headers)
        if is_job(run.id):
            self._pulled_job(priority, delivery, run, envelope)
            return
        sink = RunSink(self, delivery, run, envelope)
        if run.id in self._cancelled:
            self._later(self._end(sink, Cancelled("the caller left")))
        elif delivery.attempt > 1 and run.priority is Priority.INTERACTIVE:
            lost = NodeLost("the coordinator that worked on the answer was lost; ask again")
            self._later(self._end(sink, lost))
        elif delivery.attempt > self.jobs.attempts:
            self._later(self._bury(sink))
        else:
            self._begin(priority, sink)

    def _pulled_job(self, priority: Priority, delivery: Delivery, run: Run, envelope: Envelope) -> None:
        """A job has all the time of its attempt, and no caller whose deadline counts."""
        present = self.open.get(run.id)
        if present is not None:  # NATS gave up on our keep-alive: settle the delivery that counts now
            present.delivery = delivery
            return
        timed = Envelope.within(self.jobs.attempt_timeout_s, trace=envelope.trace, caller=envelope.caller)
        sink = JobSink(self, delivery, run, timed)
        self._count(priority, sink)
        self._later(sink.begin())

    def _begin(self, priority: Priority, sink: RunSink) -> None:
        try:
            sink.work = self.ref.deliver(sink.pulled, sink, sink.pulled.envelope)
        except OrchestraError as error:
            log.warning("run %s goes back to the queue: %s", sink.pulled.run.id, error)
            sink.pulled.writer.close()
            self._later(sink.delivery.nak(1))
            return
        self._count(priority, sink)

    def _count(self, priority: Priority, sink: RunSink) -> None:
        sink.priority = priority
        self.open[sink.pulled.run.id] = sink
        self._at_work[priority] += 1
        RUNS_AT_WORK.labels(priority).set(self._at_work[priority])

    def finished(self, sink: RunSink) -> None:
        """A sink says that its run is settled, however it went."""
        if self.open.get(sink.pulled.run.id) is sink:
            del self.open[sink.pulled.run.id]
        if sink.priority is not None:
            self._at_work[sink.priority] -= 1
            RUNS_AT_WORK.labels(sink.priority).set(self._at_work[sink.priority])
            self._want(sink.priority)

    async def _refuse(self, delivery: Delivery, run_id: str, error: OrchestraError) -> None:
        log.warning("a run that cannot be read was refused: %s", error)
        if run_id:
            ended = Ended(seq=0, finish_reason="error", error=error.body())
            await self.bus.publish(StreamAddress(run_id).subject, ended.model_dump_json().encode())
        await bury(
            self.bus, delivery.message, reason=error.message, attempts=delivery.attempt, error=error.body()
        )
        await delivery.terminate(error.code)

    @staticmethod
    async def _bury(sink: RunSink) -> None:
        """A run that is no job, and that no coordinator survived."""
        tried = sink.delivery.attempt - 1
        error = Defect(f"given up: {tried} coordinators took it, and none came to an end")
        await bury_delivery(sink.delivery, error)
        await sink.failed(error)

    @staticmethod
    async def _end(sink: RunSink, error: OrchestraError) -> None:
        await sink.failed(error)

    def _later(self, settle: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(self._settle(settle))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    @staticmethod
    async def _settle(settle: Coroutine[Any, Any, None]) -> None:
        try:
            await settle
        except OrchestraError as error:
            log.warning("a run could not be settled, and will be delivered again: %s", error)

    def _cancel(self, message: Message) -> None:
        run_id = StreamAddress.parse(message.subject).id
        sink = self.open.get(run_id)
        if sink is not None:
            sink.cancel()
            return
        self._cancelled[run_id] = None  # perhaps it is still in the queue
        if len(self._cancelled) > self.settings.remembered_cancels:
            self._cancelled.popitem(last=False)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self.settings.keep_alive_s)
            for sink in list(self.open.values()):
                try:
                    await sink.delivery.in_progress()
                except OrchestraError as error:
                    log.debug("cannot keep run %s: %s", sink.pulled.run.id, error)
            for priority in Priority:
                self._want(priority)


class RunSink:
    """Where a run's result goes: its end onto its stream, then the acknowledgement to the queue."""

    def __init__(self, intake: Intake, delivery: Delivery, run: Run, envelope: Envelope) -> None:
        self.intake = intake
        self.delivery = delivery
        self.priority: Priority | None = None
        self.work: Work | None = None
        self.began = time.perf_counter()
        self.pulled = PulledRun(run, envelope, self.make_writer(StreamAddress(run.id)))

    def make_writer(self, address: StreamAddress) -> StreamWriter:
        return StreamWriter(self.delivery.bus, address, self._gone)

    def cancel(self) -> None:
        """The caller no longer wants the answer."""
        if self.work is not None:
            self.work.cancel()

    def _gone(self) -> None:
        """Nobody listens. A job is finished all the same."""
        if self.pulled.run.priority is Priority.INTERACTIVE:
            self.cancel()

    async def item(self, value: Any) -> None:
        raise TypeError("a coordinator writes its stream itself")

    async def done(self, ended: Ended) -> None:
        self._count("ok")
        try:
            await self.pulled.writer.end(ended)
            await self.delivery.ack()
        finally:
            self._finish()

    async def failed(self, error: OrchestraError) -> None:
        """End the stream with the error. A job that this process could not finish goes back."""
        self._count(error.code)
        try:
            if isinstance(error, Stopped) and self.pulled.run.priority is not Priority.INTERACTIVE:
                await self.delivery.nak()
                return
            await self.pulled.writer.end(self._ended(error))
            await self.delivery.ack()
        finally:
            self._finish()

    def _ended(self, error: OrchestraError) -> Ended:
        return Ended(
            seq=0,
            finish_reason="cancelled" if isinstance(error, Cancelled) else "error",
            steps=tuple(self.pulled.steps),
            error=error.body(),
            trace_id=trace_id(self.pulled.envelope.trace),
        )

    def _count(self, outcome: str) -> None:
        pattern = pattern_label(self.pulled.run.pattern)
        RUNS.labels(pattern, outcome).inc()
        RUN_SECONDS.labels(pattern).observe(time.perf_counter() - self.began)

    def _finish(self) -> None:
        self.pulled.writer.close()
        self.intake.finished(self)


class JobSink(RunSink):
    """A job's end goes into the books of jobs first; then onto its stream, for whoever watches."""

    def __init__(self, intake: Intake, delivery: Delivery, run: Run, envelope: Envelope) -> None:
        self.recorder: Recorder
        self.record: JobRecord | None = None
        self.cancelled = False
        super().__init__(intake, delivery, run, envelope)

    def make_writer(self, address: StreamAddress) -> StreamWriter:
        self.recorder = Recorder(self.delivery.bus, address, self._gone)
        return self.recorder

    async def begin(self) -> None:
        """Perform the job, unless the books say that there is nothing to do."""
        try:
            self.record = await self.intake.clerk.begin(self.pulled.run.id, self.delivery)
        finally:  # after an error it comes again when its ack_wait is over
            if self.record is None:
                self._finish()
        if self.record is None:
            return
        try:
            if self.cancelled:
                raise Cancelled("the job was cancelled")
            self.work = self.intake.ref.deliver(self.pulled, self, self.pulled.envelope)
        except OrchestraError as error:
            await self.failed(error)

    def cancel(self) -> None:
        self.cancelled = True
        super().cancel()

    async def done(self, ended: Ended) -> None:
        assert self.record is not None
        self._count("ok")
        try:
            await self.intake.clerk.succeeded(self.record, self.delivery, self.recorder.draft, ended)
            await self.recorder.end(ended)
        finally:
            self._finish()

    async def failed(self, error: OrchestraError) -> None:
        assert self.record is not None
        self._count(error.code)
        try:
            ended = self._ended(error)
            if await self.intake.clerk.failed(self.record, self.delivery, error, ended):
                await self.recorder.end(ended)
        finally:
            self._finish()
