"""Work queues: put work on a stream, and pull it with a credit.

One continuous pull per consumer: a puller says how many messages it can take (`want`), asks the server
for that many in one request, and asks again when half is used up.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass

from actors.runtime.bus import Bus, Headers, Message, Subscription
from orchestration.errors import BusUnavailable, NobodyListens, OrchestraError, QueueFull

log = logging.getLogger(__name__)

QUEUE_FULL_CODES = {10077, 10023, 10047}
"""Maximum messages per subject or in all, insufficient resources, storage exceeded."""
WRONG_LAST_SEQUENCE = 10071
PULL_EXPIRES_S = 30.0


async def enqueue(bus: Bus, subject: str, data: bytes, headers: Headers, *, timeout: float = 5) -> int:
    """Store one message; returns its sequence. Raises `QueueFull` when the queue's limit is reached."""
    try:
        reply = await bus.request(subject, data, headers=headers, timeout=timeout)
    except NobodyListens as error:
        raise BusUnavailable(f"no stream takes {subject}; were the streams declared?") from error
    return stored(subject, reply)


def stored(subject: str, reply: Message) -> int:
    """The sequence in a publish acknowledgement; raises the error it reports."""
    answer = json.loads(reply.data)
    problem = answer.get("error")
    if problem is None:
        return int(answer["seq"])
    if problem.get("err_code") in QUEUE_FULL_CODES:
        raise QueueFull(f"the queue {subject} is full", retry_after_s=1)
    raise OrchestraError(f"JetStream refused {subject}: {problem.get('description', problem)}")


@dataclass(slots=True)
class Delivery:
    """One pulled message and the ways to settle it."""

    bus: Bus
    message: Message

    @property
    def attempt(self) -> int:
        """1 for the first delivery. Read from the reply `$JS.ACK.<stream>.<consumer>.<delivered>.…`."""
        tokens = self.message.reply.split(".")
        return int(tokens[-5])

    async def ack(self) -> None:
        await self.bus.publish(self.message.reply, b"+ACK")

    async def nak(self, delay_s: float = 0) -> None:
        """Give it back, to be delivered again after `delay_s` seconds."""
        delay = json.dumps({"delay": int(delay_s * 1e9)})
        await self.bus.publish(self.message.reply, f"-NAK {delay}".encode())

    async def in_progress(self) -> None:
        """Tell the server that the work goes on, so that it is not delivered again."""
        await self.bus.publish(self.message.reply, b"+WPI")

    async def terminate(self, reason: str) -> None:
        """Never deliver it again."""
        await self.bus.publish(self.message.reply, f"+TERM {reason}".encode())


class Puller:
    """Pulls from one durable consumer as much as `want` allows.

    `outstanding` is what the server was asked for and has not sent. Call `want` whenever the room
    changes; each delivery lowers `outstanding` by one and does not ask anew by itself, so that room and
    deliveries never add up to more than was wanted.
    """

    def __init__(self, bus: Bus, stream: str, consumer: str, deliver: Callable[[Delivery], None]) -> None:
        self.bus = bus
        self.deliver = deliver
        self.subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self.inbox = f"{bus.inbox}.pull.{stream}.{consumer}"
        self.outstanding = 0
        self.room = 0
        self._subscription: Subscription | None = None
        self._asking: asyncio.Task[None] | None = None
        self._asked_at = 0.0

    async def start(self) -> None:
        self._subscription = await self.bus.subscribe(self.inbox, self._arrived)
        self.bus.on_reconnect.append(self._reset)

    async def stop(self) -> None:
        """Stop pulling; what the server still sends comes back after its ack_wait."""
        self.room = 0
        if self._reset in self.bus.on_reconnect:
            self.bus.on_reconnect.remove(self._reset)
        if self._asking is not None:
            self._asking.cancel()
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    def want(self, room: int) -> None:
        """Take up to `room` more messages."""
        self.room = room
        stale = self.outstanding and asyncio.get_running_loop().time() - self._asked_at > PULL_EXPIRES_S + 5
        if stale:  # the server forgot us, for example because the consumer was made anew
            self.outstanding = 0
        missing = room - self.outstanding
        if missing > 0 and missing * 2 >= room and (self._asking is None or self._asking.done()):
            self._asking = asyncio.get_running_loop().create_task(self._ask(missing))

    async def _ask(self, batch: int) -> None:
        self.outstanding += batch
        self._asked_at = asyncio.get_running_loop().time()
        body = json.dumps({"batch": batch, "expires": int(PULL_EXPIRES_S * 1e9)}).encode()
        try:
            await self.bus.publish(self.subject, body, reply=self.inbox)
        except BusUnavailable:
            self.outstanding -= batch  # asked again on reconnect

    def _arrived(self, message: Message) -> None:
        status = message.status
        if not status:
            self.outstanding = max(0, self.outstanding - 1)
            self.deliver(Delivery(self.bus, message))
            return
        if status == "100":
            return
        pending = message.header("Nats-Pending-Messages")
        if pending:
            self.outstanding = max(0, self.outstanding - int(pending))
        else:
            self.outstanding = 0
            log.debug("pull on %s: %s %s", self.subject, status, message.header("Description"))
        if status != "503":  # nobody: the consumer is not there; the owner's next `want` tries again
            self.want(self.room)

    def _reset(self) -> None:
        self.outstanding = 0
        self.want(self.room)


__all__ = ["WRONG_LAST_SEQUENCE", "Delivery", "Puller", "enqueue", "stored"]
