"""The only module that knows nats-py: one connection, publish, subscribe, request.

JetStream and key-value are plain requests on top (`jetstream.py`, `kv.py`). Requests share one inbox
subscription and a dictionary of futures, which spares the subscription and the wrapping task that
nats-py spends on each (about 100 of 270 µs measured).
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from secrets import token_hex
from typing import Any

from actors.bus.handlers import Callback, Handler, Handlers, Subscription
from actors.bus.message import Headers, Message, decode_headers, encode_headers
from actors.bus.replay_buffer import AGAIN, ReplayBuffer
from actors.bus.reply_inbox import ReplyInbox
from actors.bus.settings import BusSettings
from actors.bus.write_buffer import WriteBuffer
from actors.telemetry.optional_imports import without_module
from actors.telemetry.telemetry import BUS_DENIED, BUS_RECONNECTS, BUS_SLOW_CONSUMER
from orchestration.errors import BusUnavailable, NoResponders, PayloadTooLarge

# nats-py needs aiohttp for WebSockets only; importing it takes 0.1 s of every command.
with without_module("aiohttp"):
    import nats.errors
    from nats.aio import transport
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription as NatsSubscription

__all__ = ["Bus", "BusSettings", "Handler", "Headers", "Message", "Subscription"]

log = logging.getLogger(__name__)

_SENDING = (Client.CONNECTED, Client.DRAINING_SUBS)
_MAX_SUBJECTS = 2048
_MAX_HEADERS = 65_536
"""Bytes of headers, which count as payload; none of ours come near."""
"""Characters of subject and reply together: the server cuts off a client whose line passes 4 KB."""
_FLUSH_S = 5.0


def _allow_websockets() -> None:
    """Give nats-py the modules that it was imported without."""
    import aiohttp
    import multidict

    transport.aiohttp = aiohttp  # type: ignore[attr-defined]
    transport.multidict = multidict  # type: ignore[attr-defined]


class _Client(Client):
    """nats-py with a shorter way in and out, and without its ways to close for good.

    A command goes into a `WriteBuffer`, and a message straight from nats-py's parser to its handler. It uses
    private parts of nats-py 2; the tests of the bus cover each, and the dependency is pinned below 3.
    """

    def __init__(self) -> None:
        super().__init__()
        self.direct: dict[int, Callback] = {}
        self.write_buffer = WriteBuffer(self)

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        deliver = self.direct.get(sid)
        if deliver is None:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            found = decode_headers(headers) if headers else None
            deliver(Message(subject.decode(), reply.decode(), data, found))

    async def _process_err(self, err_msg: str) -> None:
        """nats-py closes for good at any complaint of the server but two; here it connects anew."""
        error = nats.errors.Error(f"the server said {err_msg}")
        if "permissions violation" in err_msg:
            await self._error_cb(error)
        else:
            log.warning("the NATS server complains and is left: %s", err_msg)
            await self._process_op_err(error)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        self.write_buffer.write_now()  # otherwise nats-py's ping overtakes the queued messages
        await super()._send_ping(future)

    async def _attempt_reconnect(self) -> None:
        # A peer that no longer reads never lets a written-to socket close in good order.
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()
        await super()._attempt_reconnect()


@dataclass(slots=True, eq=False)
class _Subscription:
    bus: Bus
    raw: NatsSubscription

    def _forget(self) -> None:
        self.bus.client.direct.pop(self.raw._id, None)
        self.bus.local_handlers.pop(self.raw.subject, None)

    async def unsubscribe(self) -> None:
        """Stop the flow; what already arrived is dropped. Harmless when the connection is gone."""
        self._forget()
        try:
            await self.raw.unsubscribe()
        except (nats.errors.Error, OSError):
            log.debug("unsubscribe from %s after the connection went", self.raw.subject)

    async def drain(self) -> None:
        """Stop the flow once everything that the server already sent has been handled."""
        self.bus.local_handlers.pop(self.raw.subject, None)
        try:
            async with asyncio.timeout(_FLUSH_S):
                await self.raw.drain()  # type: ignore[no-untyped-call]
        except (nats.errors.Error, OSError, TimeoutError):
            await self.unsubscribe()
        self._forget()


@dataclass(slots=True, eq=False)
class Bus:
    """A connection to NATS that reconnects for ever.

    Use `Bus.connect`. While the server is away, publishing raises `BusUnavailable` rather than
    buffering: whoever asks should hear at once that the answer will not come.
    """

    client: _Client
    settings: BusSettings
    name: str
    reply_inbox: ReplyInbox
    handlers: Handlers
    on_reconnect: list[Callable[[], None]] = field(default_factory=list)
    on_disconnect: list[Callable[[], None]] = field(default_factory=list)
    replay_buffer: ReplayBuffer = field(init=False)
    """Of the streams that this process writes."""
    local_handlers: dict[str, Callback] = field(default_factory=dict)
    """Subjects, or `prefix.*`, that nobody but this process listens to."""
    ready: bool = False
    """Whether every subscription is in place at the server, which after a reconnect takes a moment."""

    def __post_init__(self) -> None:
        self.replay_buffer = ReplayBuffer(self.post)

    @classmethod
    async def connect(cls, settings: BusSettings, *, name: str) -> Bus:
        """Connect once. Raises `BusUnavailable` naming the URL when nobody answers there."""
        if "ws://" in settings.url or "wss://" in settings.url:
            _allow_websockets()
        client = _Client()
        inbox = f"_INBOX.{token_hex(8)}"
        bus = cls(client, settings, name, ReplyInbox(inbox), Handlers(name))
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
        except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
            if client._flush_queue is not None:  # it got as far as having something to close
                await client.close()
            reason = str(error) or "no answer in time"
            raise BusUnavailable(f"no NATS server answers at {settings.url}: {reason}") from error
        bus.ready = True
        await bus.subscribe(f"{inbox}.*", bus.reply_inbox.arrived, exclusive=True)
        await bus.subscribe(AGAIN, bus.replay_buffer.asked)
        bus.on_reconnect.append(bus.replay_buffer.reconnected)
        await bus.flush()
        return bus

    @property
    def inbox(self) -> str:
        """The prefix of every reply subject of this connection."""
        return self.reply_inbox.inbox

    @property
    def connected(self) -> bool:
        return self.ready and self.client.is_connected

    @property
    def connection(self) -> str:
        """Names the present connection to a server: another one after each reconnect."""
        info = self.client._server_info
        return f"{info.get('server_id')}.{info.get('client_id')}"

    @property
    def max_payload(self) -> int:
        return self.client.max_payload

    def post(
        self, subject: str, data: bytes = b"", *, reply: str = "", headers: Headers | None = None
    ) -> None:
        """Send and forget, without waiting for anything: for small messages and for callbacks.

        Raises `BusUnavailable` or `PayloadTooLarge`, ValueError for what cannot be a subject or header.
        """
        client = self.client
        if not self.ready or client._status not in _SENDING:
            raise BusUnavailable(f"NATS at {self.settings.url} is away")
        if len(data) > client.max_payload - _MAX_HEADERS:  # beyond it the server ends the connection
            size = len(data) + (len(encode_headers(headers)) if headers else 0)
            if size > client.max_payload:
                raise PayloadTooLarge(f"a message of {size} bytes exceeds max_payload {client.max_payload}")
        both = subject + reply
        if not subject or len(both) > _MAX_SUBJECTS or " " in both or not both.isprintable():
            raise ValueError(f"{subject[:80]!r} cannot be a subject (reply {reply[:80]!r})")
        deliver = self.local_handlers.get(subject) or self.local_handlers.get(
            f"{subject.rpartition('.')[0]}.*"
        )
        if deliver is None:
            client.write_buffer.send(subject, reply, data, headers)
        else:
            client.write_buffer.count(len(data))
            asyncio.get_running_loop().call_soon(deliver, Message(subject, reply, data, headers))

    async def publish(
        self, subject: str, data: bytes = b"", *, reply: str = "", headers: Headers | None = None
    ) -> None:
        """Like `post`, and waits where the server takes messages more slowly than they come."""
        self.post(subject, data, reply=reply, headers=headers)
        if self.client.write_buffer.crowded:
            try:
                await self.client.write_buffer.breathe()
            except OSError as error:
                raise BusUnavailable(f"NATS at {self.settings.url} is away: {error}") from error

    async def subscribe(
        self, subject: str, handler: Handler, *, queue: str = "", exclusive: bool = False
    ) -> Subscription:
        """Call `handler` for each message, one after another; it must not block.

        A plain function is called where the message is read, at a third of the cost of a coroutine
        function, which gets a queue and a task. Long work belongs in a mailbox, not in a handler.

        `exclusive` says that nobody else ever listens to the subject (an inbox, a node's own subject):
        what this process itself sends there skips the server, half of the way of a request in a process
        that has several roles. It takes a plain function, and a subject with a `*` at most at its end.
        """
        client = self.client
        options: dict[str, Any] = {}
        number = client._sid + 1  # nats-py numbers a subscription before it sends anything
        if inspect.iscoroutinefunction(handler):

            async def deliver(raw: Msg) -> None:
                await handler(Message(raw.subject, raw.reply, raw.data, raw.headers))

            options = {
                "cb": deliver,
                "pending_msgs_limit": self.settings.pending_messages,
                "pending_bytes_limit": self.settings.pending_bytes,
            }
        else:
            client.direct[number] = self.handlers.direct(handler)
            options = {"future": _NEVER}
        try:
            raw = await client.subscribe(subject, queue=queue, **options)
        except (nats.errors.Error, OSError) as error:
            client.direct.pop(number, None)  # the next subscription may get the same number
            client._subs.pop(number, None)
            if isinstance(error, nats.errors.BadSubjectError):
                raise ValueError(f"{subject!r} cannot be subscribed to") from error
            raise BusUnavailable(f"NATS at {self.settings.url} is away: {error}") from error
        if exclusive and self.settings.local_delivery:
            self.local_handlers[subject] = client.direct[raw._id]
        return _Subscription(self, raw)

    async def flush(self) -> None:
        """Wait until the server has seen everything sent so far, subscriptions included."""
        if not self.connected:
            raise BusUnavailable(f"NATS at {self.settings.url} is away")
        try:
            async with asyncio.timeout(_FLUSH_S):
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
        within: set[asyncio.Future[Message]] | None = None,
    ) -> Message:
        """The first answer. Raises `NoResponders`, `DeadlineExceeded` after `timeout` seconds,
        or `BusUnavailable`. While it waits its future is in `within`, where others may fail it."""

        async def send(reply: str) -> None:
            await self.publish(subject, data, reply=reply, headers=headers)

        seconds = self.settings.request_timeout_s if timeout is None else timeout
        message = await self.reply_inbox.first(send, subject, seconds, within)
        if message.status == "503":
            raise NoResponders(f"nobody listens on {subject}")
        return message

    def expect(self, arrived: Callback) -> str:
        """A fresh reply subject; `arrived` gets every message sent to it until `forget`."""
        return self.reply_inbox.expect(arrived)

    def forget(self, reply: str) -> None:
        self.reply_inbox.forget(reply)

    async def close(self) -> None:
        """Send what is pending and close."""
        self.client.write_buffer.write_now()
        try:
            await asyncio.wait_for(self.client.drain(), 2)
        except (nats.errors.Error, OSError, TimeoutError):
            await self.client.close()
        self.ready = False
        self.handlers.cancel()

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
        if not self.ready:
            return
        self.ready = False
        if not self.client.is_draining and not self.client.is_closed:
            log.warning("%s lost its connection to NATS; reconnecting", self.name)
        self.reply_inbox.fail(lambda: BusUnavailable("the connection to NATS was lost before the answer"))
        self._call(self.on_disconnect)

    async def _reconnected(self) -> None:
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


class _Never:
    """Stands where nats-py wants a future: with it, a subscription gets no queue and no task."""

    def cancelled(self) -> bool:
        return True


_NEVER = _Never()
