"""The bus: one connection to NATS, with publish, subscribe and request.

JetStream and key-value are plain requests on top (`jetstream.py`, `key_value.py`). Requests share one inbox
subscription and a dictionary of futures, which saves the subscription and the wrapping task that nats-py
spends on each (about 100 of 270 µs measured).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any, Protocol

from actors.bus.handlers import Callback, Handler, Handlers, Subscription
from actors.bus.message import Headers, Message
from actors.bus.message_traces import MessageTracer
from actors.bus.nats_client import NatsConnection
from actors.bus.replay_buffer import ReplayBuffer
from actors.bus.reply_inbox import ReplyInbox
from actors.bus.settings import BusSettings
from actors.bus.subjects import StreamAddress
from actors.telemetry.loop_monitor import LoopMonitor
from actors.telemetry.telemetry import BUS_RECONNECTS
from orchestration.errors import BusUnavailable, NoResponders, PayloadTooLarge

__all__ = ["Bus", "BusSettings", "Handler", "Headers", "Message", "Subscription"]

log = logging.getLogger(__name__)

CLOSE_TIMEOUT_S = 2.0
CONNECTED_POLL_S = 0.1
"""Pause between two looks at the connection in `wait_connected`."""


class LocalStream(Protocol):
    """The reader of a stream in this process."""

    left_ns: int
    """When its caller left, as Unix time in nanoseconds; 0: it has not."""

    def take(self, seq: int, event: Any, writer: str) -> bool:
        """Take one event; False if its writer was replaced, and should stop."""


class LocalNode(Protocol):
    """A node of this process: see `ActorRef.deliver`."""

    def deliver(self, message: Any, sink: Any, envelope: Any) -> Any: ...


@dataclass(slots=True, eq=False)
class Bus:
    """A connection to NATS that reconnects for ever. Make one with `Bus.connect`.

    While the server is away, publishing raises `BusUnavailable` instead of buffering, so that a caller
    learns at once that no answer will come.
    """

    nats: NatsConnection
    settings: BusSettings
    name: str
    """Name of this connection, in logs and at the server."""
    reply_inbox: ReplyInbox
    handlers: Handlers
    on_reconnect: list[Callable[[], None]] = field(default_factory=list)
    """Called after each reconnect."""
    on_disconnect: list[Callable[[], None]] = field(default_factory=list)
    """Called after each loss of the connection."""
    replay_buffer: ReplayBuffer = field(init=False)
    """The events of the streams that this process writes."""
    local_handlers: dict[str, Callback] = field(default_factory=dict)
    """Handlers by subject, or `prefix.*`, to which only this process listens."""
    local_nodes: dict[str, LocalNode] = field(default_factory=dict)
    """The nodes of this process, by id."""
    local_streams: dict[str, Mapping[str, LocalStream]] = field(default_factory=dict)
    """The open streams of each client of this process, by id."""
    loop_monitor: LoopMonitor = field(default_factory=LoopMonitor)
    """Whether this process is behind with its work."""
    http_url: str = ""
    """The base URL of this process's HTTP API, while it serves one."""
    message_tracer: MessageTracer | None = None
    """Asks the servers to trace messages of sampled requests; None: they do not."""
    ready: bool = False
    """Whether the server has every subscription; after a reconnect that takes a moment."""

    def __post_init__(self) -> None:
        self.replay_buffer = ReplayBuffer(self.post)

    @classmethod
    async def connect(cls, settings: BusSettings, *, name: str) -> Bus:
        """Connect once. Raises `BusUnavailable` naming the URL when no server answers there."""
        inbox = f"_INBOX.{token_hex(8)}"
        bus = cls(NatsConnection(settings, name), settings, name, ReplyInbox(inbox), Handlers(name))
        await bus.nats.connect(bus._disconnected, bus._reconnected)
        bus.ready = True
        await bus.subscribe(f"{inbox}.*", bus.reply_inbox.dispatch, exclusive=True)
        await bus.subscribe(StreamAddress.REPLAYS, bus.replay_buffer.on_request)
        bus.on_reconnect.append(bus.replay_buffer.on_reconnect)
        await bus.flush()
        return bus

    @property
    def inbox(self) -> str:
        """The prefix of every reply subject of this connection."""
        return self.reply_inbox.inbox

    @property
    def connected(self) -> bool:
        return self.ready and self.nats.is_connected

    @property
    def connection_id(self) -> str:
        """Identifies the present connection to a server; a reconnect changes it."""
        return self.nats.id

    @property
    def max_payload(self) -> int:
        return self.nats.max_payload

    def post(
        self, subject: str, data: bytes = b"", *, reply: str = "", headers: Headers | None = None
    ) -> None:
        """Send without waiting: for small messages and for callbacks.

        Raises `BusUnavailable` or `PayloadTooLarge`, and ValueError for an invalid subject or header.
        """
        nats = self.nats
        if not self.ready:
            raise nats.unavailable()
        local = self.local_handlers
        handler = local.get(subject) or local.get(f"{subject.rpartition('.')[0]}.*")
        if handler is None and headers and self.message_tracer is not None:
            headers = self.message_tracer.marked(headers)
        nats.check_message(subject, reply, data, headers)
        if handler is None:
            nats.send(subject, reply, data, headers)
        else:
            nats.count_local(len(data))
            asyncio.get_running_loop().call_soon(handler, Message(subject, reply, data, headers))

    def answer(self, request: Message, data: bytes = b"", *, headers: Headers | None = None) -> None:
        """Answer a request without waiting. Nobody gets an answer who names no reply subject, or who asked
        before the connection was lost."""
        if not request.reply:
            return
        try:
            self.post(request.reply, data, headers=headers)
        except BusUnavailable as error:
            log.debug("could not answer a request on %s: %s", request.subject, error)
        except PayloadTooLarge as error:
            log.warning("could not answer a request on %s: %s", request.subject, error)

    async def publish(
        self, subject: str, data: bytes = b"", *, reply: str = "", headers: Headers | None = None
    ) -> None:
        """Like `post`; waits when the server takes messages more slowly than they come."""
        self.post(subject, data, reply=reply, headers=headers)
        if self.nats.should_wait:
            await self.nats.wait_for_socket()

    async def subscribe(
        self, subject: str, handler: Handler, *, queue: str = "", exclusive: bool = False
    ) -> Subscription:
        """Call `handler` for each message, one after another; it must not block.

        A plain function is called where the message is read, at a third of the cost of a coroutine
        function, which gets a queue and a task. Long work belongs in a mailbox, not in a handler.

        `exclusive`: only this process ever listens to the subject (an inbox, a node's own subject). What this
        process sends there then skips the server, which halves the way of a request in a process with several
        roles. It needs a plain function, and a `*` at most at the end of the subject.

        Raises ValueError for an invalid subject, `BusUnavailable` without a connection.
        """
        if inspect.iscoroutinefunction(handler):
            return await self.nats.subscribe(subject, queue, handler)
        callback = self.handlers.direct(handler)
        subscription = await self.nats.subscribe(subject, queue, callback)
        if not exclusive or not self.settings.local_delivery:
            return subscription
        self.local_handlers[subject] = callback
        return _LocalSubscription(subscription, self.local_handlers, subject)

    async def wait_connected(self, seconds: float) -> None:
        """Wait until NATS is connected. Raises `BusUnavailable` after `seconds`."""
        gives_up_at = time.monotonic() + seconds
        while not self.connected:
            if time.monotonic() > gives_up_at:
                raise self.nats.unavailable()
            await asyncio.sleep(CONNECTED_POLL_S)

    async def flush(self) -> None:
        """Wait until the server has processed everything sent so far, subscriptions included."""
        if not self.connected:
            raise self.nats.unavailable()
        await self.nats.flush()

    async def request(
        self,
        subject: str,
        data: bytes = b"",
        *,
        timeout: float | None = None,
        headers: Headers | None = None,
        within: set[asyncio.Future[Message]] | None = None,
    ) -> Message:
        """The first answer. Raises `NoResponders`, `DeadlineExceeded` after `timeout` seconds
        (default `request_timeout_s`), or `BusUnavailable`. While the request waits its future is in `within`,
        where others may fail it."""

        async def send(reply: str) -> None:
            await self.publish(subject, data, reply=reply, headers=headers)

        seconds = self.settings.request_timeout_s if timeout is None else timeout
        message = await self.reply_inbox.first(send, subject, seconds, within)
        if message.status == "503":
            raise NoResponders(f"no process listens on {subject}")
        return message

    def expect(self, on_reply: Callback) -> str:
        """A fresh reply subject; `on_reply` gets every message sent to it until `forget`."""
        return self.reply_inbox.expect(on_reply)

    def forget(self, reply: str) -> None:
        self.reply_inbox.forget(reply)

    async def close(self) -> None:
        """Send what is pending and close."""
        await self.nats.close(CLOSE_TIMEOUT_S)
        self.ready = False
        self.handlers.cancel()

    def _disconnected(self) -> None:
        if not self.ready:
            return
        self.ready = False
        if not self.nats.is_closing:
            log.warning("%s lost its connection to NATS; reconnecting", self.name)
        self.reply_inbox.fail(lambda: BusUnavailable("the connection to NATS was lost before the answer"))
        self._call(self.on_disconnect)

    def _reconnected(self) -> None:
        self.ready = True
        BUS_RECONNECTS.inc()
        log.info("%s is connected to NATS again", self.name)
        self._call(self.on_reconnect)

    def _call(self, listeners: list[Callable[[], None]]) -> None:
        for listener in list(listeners):
            try:
                listener()
            except Exception as error:  # one listener's fault must not end the reconnecting
                log.error("a listener of %s failed", self.name, exc_info=error)


@dataclass(frozen=True, slots=True)
class _LocalSubscription:
    """A subscription whose messages from this process skip the server."""

    subscription: Subscription
    local_handlers: dict[str, Callback]
    subject: str

    async def unsubscribe(self) -> None:
        self.local_handlers.pop(self.subject, None)
        await self.subscription.unsubscribe()

    async def drain(self) -> None:
        self.local_handlers.pop(self.subject, None)
        await self.subscription.drain()
