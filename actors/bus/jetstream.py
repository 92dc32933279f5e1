"""Work queues: put work on a stream, and pull it with a credit.

One continuous pull per consumer: a puller says how many messages it can take (`request`), asks the server
for that many in one request, and asks again when half is used up.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex

from actors.bus.bus import Bus, Headers, Message, Subscription
from orchestration.errors import BusUnavailable, InternalError, NoResponders, PayloadTooLarge, QueueFull

log = logging.getLogger(__name__)

MESSAGE_ID_HEADER = "Nats-Msg-Id"
"""JetStream stores messages with the same id once, when they arrive within the stream's duplicate window."""
QUEUE_FULL_CODES = {10077, 10023, 10047}
"""JetStream's codes for: maximum messages per subject or in all, insufficient resources, storage exceeded."""
WRONG_LAST_SEQUENCE = {10071, 10164}
"""JetStream's codes for: another message was stored first, or, in a cluster, is being stored."""
PULL_EXPIRES_S = 10.0
"""A pull request ends after this long. Requests lost with a server that died are repeated 5 s later."""
TOO_LARGE = 10054
"""JetStream's code for a message that exceeds the limit of its stream."""
REFUSED_PAUSE_S = 0.5
MAX_EXTRA = 64
"""Maximum number of messages requested beyond the room, while the ones that come need none, as after hundreds
of callers have left: requesting them singly would cost a round trip each. As many messages too many may come
when messages that need room follow."""


async def enqueue(bus: Bus, subject: str, data: bytes, headers: Headers, *, timeout: float = 5) -> int:
    """Store one message; returns its sequence. Raises `QueueFull` when the queue's limit is reached."""
    try:
        reply = await bus.request(subject, data, headers=headers, timeout=timeout)
    except NoResponders as error:
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
    if problem.get("err_code") == TOO_LARGE:
        raise PayloadTooLarge(f"the message to {subject} is larger than its stream allows (max_msg_size)")
    if problem.get("code", 500) >= 500:  # no leader, shutting down, overloaded: it passes
        raise BusUnavailable(f"JetStream cannot take {subject} now: {problem.get('description', problem)}")
    raise InternalError(f"JetStream refused {subject}: {problem.get('description', problem)}")


async def delete(bus: Bus, stream: str, sequence: int) -> bool:
    """Remove one message; whether it was there."""
    body = json.dumps({"seq": sequence, "no_erase": True}).encode()
    answer = json.loads((await bus.request(f"$JS.API.STREAM.MSG.DELETE.{stream}", body)).data)
    return bool(answer.get("success"))


@dataclass(slots=True)
class Delivery:
    """One pulled message, and how to acknowledge it."""

    bus: Bus
    message: Message
    over: bool = False
    """Whether it was acknowledged or terminated, and so has left the queue."""

    @property
    def attempt(self) -> int:
        """1 for the first delivery."""
        return int(self._token(4))

    @property
    def sequence(self) -> int:
        """The number under which the stream stored it."""
        return int(self._token(5))

    @property
    def stored_ns(self) -> int:
        """When the stream stored it, as Unix time in nanoseconds by the server's clock."""
        return int(self._token(7))

    @property
    def stored_at(self) -> float:
        """Unix time in seconds at which the stream stored it."""
        return self.stored_ns / 1e9

    @property
    def number(self) -> int:
        """The number of this delivery among all of the consumer, redeliveries included."""
        return int(self._token(6))

    def _token(self, place: int) -> str:
        """A token of the reply subject
        `$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer's sequence>.<time>.<pending>`, which has
        nine tokens; a longer one has `<domain>.<account>` before the stream."""
        tokens = self.message.reply.split(".")
        return tokens[place if len(tokens) == 9 else place + 2]

    def settle(self, verb: bytes) -> None:
        """Send `+ACK`, `-NAK`, `+WPI` or `+TERM` without waiting. Raises `BusUnavailable`."""
        self.bus.post(self.message.reply, verb)
        self.over = self.over or verb.startswith((b"+ACK", b"+TERM"))

    async def ack(self) -> None:
        self.settle(b"+ACK")

    async def nak(self, delay_s: float = 0) -> None:
        """Return it to the queue, to be delivered again after `delay_s` seconds."""
        delay = json.dumps({"delay": int(delay_s * 1e9)})
        self.settle(f"-NAK {delay}".encode())

    async def in_progress(self) -> None:
        """Extend the acknowledgement deadline: the work continues."""
        self.settle(b"+WPI")

    async def terminate(self, reason: str) -> None:
        """Never deliver it again."""
        self.settle(f"+TERM {' '.join(reason.split())}".encode())


class Puller:
    """Pulls messages from one durable consumer, as many as `request` allows.

    `outstanding` is the number of messages requested and not yet received. Call `request` whenever the room
    changes. Each delivery uses room, unless `deliver` has acknowledged it when it returns: then the puller
    requests the next at once, and more at a time the more such messages come. Otherwise it repeats a request
    only when one ends and room is left, so no more messages come than have room.

    `missing` is set when the server has no such consumer, because it or its stream was deleted. Create it
    again and call `request`.
    """

    def __init__(
        self,
        bus: Bus,
        stream: str,
        consumer: str,
        deliver: Callable[[Delivery], None],
        *,
        expires_s: float = PULL_EXPIRES_S,
    ) -> None:
        self.bus = bus
        self.expires_s = expires_s
        self.deliver = deliver
        self.subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
        self.inbox = f"{bus.inbox}.pull.{token_hex(4)}"
        self.outstanding = 0
        self.room = 0
        self.missing = False
        self._extra = 0
        """Number of deliveries in a row that used no room."""
        self._subscription: Subscription | None = None
        self._requested_at = 0.0
        self._retry_timer: asyncio.TimerHandle | None = None
        self._stopping = False

    async def start(self) -> None:
        self._subscription = await self.bus.subscribe(self.inbox, self._on_message)
        self.bus.on_reconnect.append(self._reset)

    async def stop(self) -> None:
        """Stop pulling, and return to the queue what the server has already sent."""
        self._stopping = True
        self.room = 0
        if self._reset in self.bus.on_reconnect:
            self.bus.on_reconnect.remove(self._reset)
        if self._retry_timer is not None:
            self._retry_timer.cancel()
        if self._subscription is not None:
            await self._subscription.drain()

    def request(self, room: int) -> None:
        """Request messages so that up to `room` more come."""
        self.room = room
        now = time.monotonic()
        if self.outstanding and now - self._requested_at > self.expires_s + 5:
            self.outstanding = 0  # the message that ends it was lost
        target = room + self._extra if room else 0
        missing = target - self.outstanding
        if missing > 0 and missing * 2 >= target and self._retry_timer is None and not self._stopping:
            self._send_request(missing, now)

    def _send_request(self, batch: int, now: float) -> None:
        body = f'{{"batch":{batch},"expires":{int(self.expires_s * 1e9)}}}'.encode()
        try:
            self.bus.post(self.subject, body, reply=self.inbox)
        except BusUnavailable:
            return  # repeated after the reconnect
        self.outstanding += batch
        self._requested_at = now

    def _on_message(self, message: Message) -> None:
        status = message.status
        if not status:
            self.missing = False
            self.outstanding = max(0, self.outstanding - 1)
            self._accept(Delivery(self.bus, message))
        elif status == "408":  # the request ended; the header has the number of messages that did not come
            pending = message.header("Nats-Pending-Messages")
            self.outstanding = max(0, self.outstanding - int(pending)) if pending.isdigit() else 0
            self.request(self.room)
        elif status != "100":
            self.outstanding = 0
            description = message.header("Description")
            self.missing = status == "503" or "deleted" in description.lower()
            log.debug("pull on %s: %s %s", self.subject, status, description)
            self._pause()

    def _accept(self, delivery: Delivery) -> None:
        if self._stopping:
            with suppress(BusUnavailable):  # it comes back after its ack_wait
                delivery.settle(b"-NAK")
            return
        self.room = max(0, self.room - 1)
        self.deliver(delivery)
        if delivery.over:
            self._extra = min(MAX_EXTRA, self._extra + 1)
            self.request(self.room + 1)
        else:
            self._extra = 0

    def _pause(self) -> None:
        """Request again after a pause: the server refused, and would refuse again at once."""
        if self._retry_timer is None and not self._stopping:
            self._retry_timer = asyncio.get_running_loop().call_later(REFUSED_PAUSE_S, self._retry)

    def _retry(self) -> None:
        self._retry_timer = None
        self.request(self.room)

    def _reset(self) -> None:
        self.outstanding = 0
        self.request(self.room)


__all__ = ["WRONG_LAST_SEQUENCE", "Delivery", "Puller", "delete", "enqueue", "stored"]
