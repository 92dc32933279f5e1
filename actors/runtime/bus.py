"""The only module that knows nats-py: one connection, publish, subscribe, request.

JetStream and key-value are plain requests on top (`jetstream.py`, `kv.py`). Requests share one inbox
subscription and a dictionary of futures, which spares the subscription and the wrapping task that
nats-py spends on each (about 100 of 270 µs measured).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import count
from secrets import token_hex
from typing import Protocol

import nats
import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from pydantic import BaseModel, ConfigDict, Field

from actors.runtime.telemetry import BUS_DENIED, BUS_RECONNECTS, BUS_SLOW_CONSUMER
from orchestration.errors import BusUnavailable, DeadlineExceeded, NobodyListens, PayloadTooLarge

log = logging.getLogger(__name__)

Headers = dict[str, str]


class BusSettings(BaseModel):
    """How to reach NATS."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = ""
    """`nats://host:port`, several by commas; empty means: start an embedded server (`orchestra up`)."""
    connect_timeout_s: float = Field(default=5, gt=0)
    reconnect_wait_s: float = Field(default=0.25, gt=0)
    ping_interval_s: float = Field(default=10, gt=0)
    request_timeout_s: float = Field(default=5, gt=0)
    pending_messages: int = Field(default=65_536, ge=1)
    """Messages that may wait in one subscription before it counts as a slow consumer."""
    pending_bytes: int = Field(default=64 * 2**20, ge=1)


@dataclass(slots=True)
class Message:
    """One message from the bus. `status` is the code of a server status message such as 503, or ''."""

    subject: str
    reply: str
    data: bytes
    headers: Headers | None

    @property
    def status(self) -> str:
        return self.headers.get("Status", "") if self.headers and not self.data else ""

    def header(self, name: str, default: str = "") -> str:
        return self.headers.get(name, default) if self.headers else default


Handler = Callable[[Message], Awaitable[None] | None]


class Subscription(Protocol):
    async def unsubscribe(self) -> None: ...


@dataclass(slots=True, eq=False)
class _Subscription:
    bus: Bus
    raw: NatsSubscription

    async def unsubscribe(self) -> None:
        """Stop the flow; what already arrived is dropped. Harmless when the connection is gone."""
        try:
            await self.raw.unsubscribe()
        except (nats.errors.Error, OSError):
            log.debug("unsubscribe from %s after the connection went", self.raw.subject)


@dataclass(slots=True, eq=False)
class Bus:
    """A connection to NATS that reconnects for ever.

    Use `Bus.connect`. While the server is away, publishing raises `BusUnavailable` rather than
    buffering: whoever asks should hear at once that the answer will not come.
    """

    client: Client
    settings: BusSettings
    name: str
    inbox: str
    waiting: dict[str, Callable[[Message], None]] = field(default_factory=dict)
    requests: set[asyncio.Future[Message]] = field(default_factory=set)
    tokens: count[int] = field(default_factory=count)
    on_reconnect: list[Callable[[], None]] = field(default_factory=list)
    on_disconnect: list[Callable[[], None]] = field(default_factory=list)

    @classmethod
    async def connect(cls, settings: BusSettings, *, name: str) -> Bus:
        """Connect once. Raises `BusUnavailable` naming the URL when nobody answers there."""
        client = Client()
        inbox = f"_INBOX.{token_hex(8)}"
        bus = cls(client, settings, name, inbox)
        try:
            await asyncio.wait_for(
                client.connect(
                    servers=[url.strip() for url in settings.url.split(",")],
                    name=name,
                    connect_timeout=max(1, round(settings.connect_timeout_s)),
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=settings.reconnect_wait_s,  # type: ignore[arg-type]
                    ping_interval=settings.ping_interval_s,  # type: ignore[arg-type]
                    max_outstanding_pings=2,
                    pending_size=0,
                    error_cb=bus._errored,
                    disconnected_cb=bus._disconnected,
                    reconnected_cb=bus._reconnected,
                ),
                settings.connect_timeout_s,
            )
        except (nats.errors.Error, OSError, TimeoutError) as error:
            await client.close()
            raise BusUnavailable(f"no NATS server answers at {settings.url}: {error or 'timeout'}") from error
        await bus.subscribe(f"{inbox}.*", bus._answered)
        await bus.flush()
        return bus

    @property
    def connected(self) -> bool:
        return self.client.is_connected

    @property
    def max_payload(self) -> int:
        return self.client.max_payload

    async def publish(
        self, subject: str, data: bytes = b"", *, reply: str = "", headers: Headers | None = None
    ) -> None:
        """Send and forget. Raises `BusUnavailable` or `PayloadTooLarge`."""
        try:
            await self.client.publish(subject, data, reply=reply, headers=headers)
        except nats.errors.MaxPayloadError as error:
            raise PayloadTooLarge.of(len(data), self.client.max_payload) from error
        except (nats.errors.Error, OSError) as error:
            raise BusUnavailable(f"NATS at {self.settings.url} is away: {error}") from error

    async def subscribe(self, subject: str, handler: Handler, *, queue: str = "") -> Subscription:
        """Call `handler` for each message, one after another; it must not block.

        Long work belongs in a mailbox, not in a handler.
        """

        async def deliver(raw: Msg) -> None:
            done = handler(Message(raw.subject, raw.reply, raw.data, raw.headers))
            if done is not None:
                await done

        try:
            raw = await self.client.subscribe(
                subject,
                queue=queue,
                cb=deliver,
                pending_msgs_limit=self.settings.pending_messages,
                pending_bytes_limit=self.settings.pending_bytes,
            )
        except (nats.errors.Error, OSError) as error:
            raise BusUnavailable(f"NATS at {self.settings.url} is away: {error}") from error
        return _Subscription(self, raw)

    async def flush(self) -> None:
        """Wait until the server has seen everything sent so far, subscriptions included.

        One ping is no barrier for a subscription that was just made, hence the second.
        """
        try:
            await self.client.flush()
            await self.client.flush()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise BusUnavailable(f"NATS at {self.settings.url} is away: {error}") from error

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        timeout: float | None = None,
        headers: Headers | None = None,
    ) -> Message:
        """The first answer. Raises `NobodyListens`, `DeadlineExceeded` after `timeout` seconds,
        or `BusUnavailable`."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Message] = loop.create_future()

        def arrived(message: Message) -> None:
            if not answer.done():
                answer.set_result(message)

        seconds = self.settings.request_timeout_s if timeout is None else timeout
        reply = self.expect(arrived)
        timer = loop.call_later(seconds, _expire, answer, subject, seconds)
        self.requests.add(answer)
        try:
            await self.publish(subject, data, reply=reply, headers=headers)
            message = await answer
        finally:
            timer.cancel()
            self.requests.discard(answer)
            self.forget(reply)
        if message.status == "503":
            raise NobodyListens(f"nobody listens on {subject}")
        return message

    def expect(self, arrived: Callable[[Message], None]) -> str:
        """A fresh reply subject; `arrived` gets every message sent to it until `forget`."""
        token = f"{next(self.tokens):x}"
        self.waiting[token] = arrived
        return f"{self.inbox}.{token}"

    @staticmethod
    def own_inbox() -> str:
        """A subject for a subscription of its own, where a stream of answers is to arrive."""
        return f"_INBOX.{token_hex(11)}"

    def forget(self, reply: str) -> None:
        self.waiting.pop(reply[len(self.inbox) + 1 :], None)

    async def close(self) -> None:
        """Send what is pending and close."""
        try:
            await asyncio.wait_for(self.client.drain(), 2)
        except (nats.errors.Error, OSError, TimeoutError):
            await self.client.close()

    def _answered(self, message: Message) -> None:
        arrived = self.waiting.get(message.subject[len(self.inbox) + 1 :])
        if arrived is not None:
            arrived(message)

    async def _errored(self, error: Exception) -> None:
        if isinstance(error, nats.errors.SlowConsumerError):
            BUS_SLOW_CONSUMER.inc()
            log.warning("slow consumer: a message on %s was dropped", error.subject)
        elif "permissions violation" in str(error).lower():
            BUS_DENIED.inc()
            log.warning("NATS denied %s: %s", self.name, error)
        elif isinstance(error, nats.errors.Error | OSError):
            log.debug("NATS connection of %s: %r", self.name, error)
        else:
            log.error("a handler of %s failed", self.name, exc_info=error)

    async def _disconnected(self) -> None:
        if not self.client.is_draining and not self.client.is_closed:
            log.warning("%s lost its connection to NATS; reconnecting", self.name)
        for answer in list(self.requests):  # an answer sent meanwhile is lost: do not wait for it
            if not answer.done():
                answer.set_exception(BusUnavailable("the connection to NATS was lost before the answer"))
        for call in self.on_disconnect:
            call()

    async def _reconnected(self) -> None:
        BUS_RECONNECTS.inc()
        log.info("%s is connected to NATS again", self.name)
        for call in self.on_reconnect:
            call()


def _expire(answer: asyncio.Future[Message], subject: str, seconds: float) -> None:
    if not answer.done():
        answer.set_exception(DeadlineExceeded(f"no answer on {subject} within {seconds:g} s"))
