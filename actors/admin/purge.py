"""Purges a queue: each piece of work in it gets an end, and its caller an error that says so.

A purge takes two calls. The first one counts, and answers with a token for exactly what it has counted; the
second one, with the token, purges that and nothing that came later. Repeating it purges what is left of it.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex

from pydantic import Field, ValidationError

from actors.admin.audit import Changed
from actors.admin.queues import QueueChange, QueueConsumer, QueuesAdmin, consumers_of
from actors.admin.requests import Refused
from actors.bus.bus import Bus, Message
from actors.bus.jetstream import Delivery
from actors.bus.provision import call_api, ensure_consumer
from actors.bus.subjects import GenerationQueue, StreamAddress, is_work_id
from actors.cluster.orders import GENERATIONS, RUNS
from actors.dispatcher.pulled_job import PulledJob
from actors.dispatcher.waiting_control import END_WAITING, EndWaiting
from actors.gateway.operation import CallContext
from actors.jobs.completion import record_cancelled
from actors.jobs.records import QueuedJob, decode_queue_message
from actors.jobs.store import JobStore
from actors.placement.generation_log import record_unplaced
from actors.runtime.commands import ask_all
from actors.streams.channel import OUT_OF_BAND
from actors.streams.client import ID_HEADER
from orchestration.errors import CancelledByOperator
from orchestration.messages import Finish, GenerationEnd, RunEnd, StreamEnd, encode_event

VALID_S = 300
"""How long a confirmation is valid."""
BATCH = 32
"""Messages that are ended at a time."""
CALL_S = 20.0
"""Maximum time of one call; the next one with the same token goes on."""


class PurgeQueue(QueueChange):
    """A purge. Without `confirm` it only counts, and answers with the token to send as `confirm`."""

    confirm: str = Field(default="", max_length=200)
    """The token of the call before, which is valid for 5 minutes and for what that call has counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Confirmation:
    """What an operator has been told: `count` messages wait in the queue, none after number `last`."""

    queue: str
    count: int
    last: int
    until: int

    @property
    def token(self) -> str:
        fields = f"{self.count}.{self.last}.{self.until}"
        digest = hashlib.sha256(f"{self.queue} {fields}".encode()).hexdigest()
        return f"{fields}.{digest[:12]}"

    @classmethod
    def read(cls, token: str, queue: str) -> Confirmation:
        """Raises `Refused` for a token of another queue, an old or an invalid one."""
        try:
            count, last, until = (int(part) for part in token.split(".")[:3])
        except ValueError:
            count = last = until = -1
        found = cls(queue=queue, count=count, last=last, until=until)
        if found.token != token:
            raise Refused(f"the confirmation is not one for queue {queue!r}: purge without `confirm` first")
        if until < time.time():
            raise Refused(f"the confirmation is older than {VALID_S} s: purge without `confirm` again")
        return found


class PurgesAdmin:
    """The handler of purges."""

    def __init__(self, queues: QueuesAdmin) -> None:
        self.bus = queues.bus
        self.queues = queues
        self.store = JobStore(queues.bus)

    async def purge(self, request: PurgeQueue, call: CallContext) -> Changed:
        queue = request.queue
        await self.queues.check(queue)
        if not request.confirm:
            asked = await self._count(queue)
            body = {"queue": queue, "waiting": asked.count, "purged": 0, "confirm": asked.token}
            return Changed(target=queue, before=None, after=None, changed=False, body=body)
        confirmed = Confirmation.read(request.confirm, queue)
        error = CancelledByOperator.of("the work", call.operator, request.reason)
        purge = _Purge(self.bus, self.store, confirmed, error)
        before = (await self._count(queue)).count
        try:
            async with asyncio.timeout(CALL_S):
                for consumer in consumers_of(queue):
                    await purge.run(consumer)
                if queue != RUNS:
                    await purge.end_waiting(queue.removeprefix(GENERATIONS))
        except TimeoutError:
            pass
        after = (await self._count(queue)).count
        return Changed(
            target=queue,
            before={"waiting": before},
            after={"waiting": after, "purged": purge.ended},
            changed=bool(purge.ended),
            body={"queue": queue, "waiting": after, "purged": purge.ended, "confirm": ""},
        )

    async def _count(self, queue: str) -> Confirmation:
        stream = consumers_of(queue)[0].stream
        state = (await call_api(self.bus, f"STREAM.INFO.{stream}"))["state"]
        count = (await self.queues.state(queue))["waiting"]
        until = int(time.time()) + VALID_S
        return Confirmation(queue=queue, count=count, last=state["last_seq"], until=until)


class _Purge:
    """Takes messages as a dispatcher or coordinator would, and ends their work with `error`. So nothing is
    purged that another process has, and what this process does not finish comes back to the queue."""

    def __init__(
        self, bus: Bus, store: JobStore, confirmed: Confirmation, error: CancelledByOperator
    ) -> None:
        self.bus = bus
        self.store = store
        self.confirmed = confirmed
        self.error = error
        self.left = confirmed.count
        self.ended = 0

    async def run(self, consumer: QueueConsumer) -> None:
        """End what waits at one consumer, until as much is ended as was confirmed."""
        if consumer.stream == GenerationQueue.STREAM:
            await ensure_consumer(self.bus, consumer.stream, consumer.consumer, consumer.filter)
        arrived: asyncio.Queue[Message] = asyncio.Queue()
        inbox = f"{self.bus.inbox}.purge.{token_hex(4)}"
        subscription = await self.bus.subscribe(inbox, arrived.put_nowait)
        try:
            while self.left > 0 and await self._batch(consumer, inbox, arrived):
                pass
        finally:
            await subscription.unsubscribe()

    async def end_waiting(self, model: str) -> None:
        """End what dispatchers have taken ahead, and what waits there for a node."""
        request = EndWaiting(model=model, last=self.confirmed.last, error=self.error.message)
        answered = await ask_all(self.bus, END_WAITING, request.model_dump())
        self.ended += sum(answer.data or 0 for answer in answered.answers)

    async def _batch(self, consumer: QueueConsumer, inbox: str, arrived: asyncio.Queue[Message]) -> bool:
        """End some messages. False when the consumer has no more that were confirmed."""
        batch = min(BATCH, self.left)
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{consumer.stream}.{consumer.consumer}"
        body = json.dumps({"batch": batch, "no_wait": True}).encode()
        await self.bus.publish(subject, body, reply=inbox)
        deliveries: list[Delivery] = []
        while len(deliveries) < batch and not (message := await arrived.get()).status:
            deliveries.append(Delivery(self.bus, message))
        confirmed = [each for each in deliveries if each.sequence <= self.confirmed.last]
        for each in deliveries:
            if each not in confirmed:
                await each.nak()
        await asyncio.gather(*(self._settle(each) for each in confirmed))
        return len(confirmed) == batch

    async def _settle(self, delivery: Delivery) -> None:
        await self._end(delivery)
        await delivery.ack()
        self.left -= 1
        self.ended += 1

    async def _end(self, delivery: Delivery) -> None:
        message, error = delivery.message, self.error.body()
        end: StreamEnd = RunEnd(finish=Finish(reason="cancelled"), error=error)
        if self.confirmed.queue != RUNS:
            end = GenerationEnd(finish=Finish(reason="error"), error=error)
            with suppress(ValueError):  # no generation
                record_unplaced(PulledJob.from_delivery(self.bus, delivery), self.error)
        elif (job_id := _job_id(message.data)) is not None:
            await self._end_job(job_id)
        work_id = message.header(ID_HEADER)
        if is_work_id(work_id):
            await self.bus.publish(StreamAddress(work_id).subject, encode_event(OUT_OF_BAND, end))

    async def _end_job(self, job_id: str) -> None:
        record = await self.store.record(job_id)
        if record is not None and not record.status.final:
            await record_cancelled(self.bus, self.store, record, self.error)


def _job_id(data: bytes) -> str | None:
    """The id of the job in a message of the queue of runs; None for a run."""
    try:
        queued = decode_queue_message(data)
    except ValidationError:
        return None
    return queued.work.id if isinstance(queued, QueuedJob) else None
