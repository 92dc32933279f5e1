"""The connection to NATS: the only module that imports nats-py, with everything used of its private parts.

nats-py connects, parses and reconnects. Five things are done differently here:

- A message goes from nats-py's parser straight to its handler, without a queue and a task.
- Commands are appended to nats-py's list of pending commands and written once per turn of the event loop.
  A coroutine, a queue and a future around each command took half of the CPU time of a request.
- A complaint of the server leads to a reconnect. nats-py closes the connection for good.
- Subjects are what the server takes for one: nats-py reconnects at control characters that count as space.
- A flush can be cancelled. nats-py reads nothing more after that.

`PRIVATE_NAMES` lists what this needs of nats-py beyond its public interface. `NatsConnection` checks that the
installed version has it, and the tests of this module check what each name does.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
from collections.abc import Awaitable, Callable, Coroutine
from functools import cache
from importlib import metadata
from typing import Any, cast

from actors.bus.handlers import Callback
from actors.bus.message import Headers, Message, decode_headers, encode_headers
from actors.bus.settings import BusSettings
from actors.installation.optional_imports import without_module
from actors.telemetry.telemetry import BUS_DENIED, BUS_SLOW_CONSUMER, BUS_UNREADABLE
from orchestration.errors import BusUnavailable, PayloadTooLarge

# nats-py needs aiohttp for WebSockets only; importing it takes 0.1 s of every command.
with without_module("aiohttp"):
    import nats.errors
    from nats.aio import transport
    from nats.aio.client import Client
    from nats.aio.msg import Msg
    from nats.aio.subscription import Subscription as NatsPySubscription
    from nats.protocol import parser

log = logging.getLogger(__name__)

SUPPORTED_VERSIONS = ">=2.16,<2.17"
"""Versions of nats-py that this module is tested with, as in pyproject.toml."""
PRIVATE_NAMES: dict[type, tuple[str, ...]] = {
    Client: (
        "_attempt_reconnect",
        "_error_cb",
        "_flush_queue",
        "_pending",
        "_pending_data_size",
        "_process_err",
        "_process_msg",
        "_process_op_err",
        "_send_ping",
        "_server_info",
        "_status",
        "_subs",
        "_transport",
    ),
    NatsPySubscription: ("_future",),
    transport.TcpTransport: ("_io_writer",),
}
# As the server separates: at space and tab, and not at other control characters, which subjects may have.
_WORD, _SPACE = rb"([^ \t\r\n]+)", rb"[ \t]+"
_NAMES = _WORD + _SPACE + _WORD + _SPACE + rb"(" + _WORD + _SPACE + rb")?"
parser.MSG_RE = re.compile(rb"\AMSG" + _SPACE + _NAMES + rb"(\d+)\r\n")
parser.HMSG_RE = re.compile(rb"\AHMSG" + _SPACE + _NAMES + rb"(\d+)" + _SPACE + rb"(\d+)\r\n")
_CAN_SEND = (Client.CONNECTED, Client.DRAINING_SUBS)

MAX_SUBJECT_CHARACTERS = 2048
"""Maximum length of subject and reply together: the server disconnects a client whose line exceeds 4 KB."""
MAX_REPLY_CHARACTERS = 1024
"""Maximum length of a reply subject, so that an answer may name a reply subject of its own."""
MAX_HEADER_BYTES = 65_536
"""Headers count as payload; none of ours are this large."""
FLUSH_TIMEOUT_S = 5.0
MAX_UNWAITED_BYTES = 256 * 1024
"""Maximum bytes, with `OVERHEAD_BYTES` for each message, that a publisher sends before it waits for the
socket. A publisher that never waits would block the event loop."""
OVERHEAD_BYTES = 512


class UnsupportedNatsPy(BusUnavailable):
    """The installed nats-py lacks private names that Orchestra uses."""

    retryable = False


def missing_private_names() -> list[str]:
    """The names in `PRIVATE_NAMES` that the installed nats-py does not have."""
    instances = {
        Client: Client(),
        NatsPySubscription: NatsPySubscription(None),
        transport.TcpTransport: transport.TcpTransport(),  # type: ignore[no-untyped-call]
    }
    return [
        f"{kind.__name__}.{name}"
        for kind, names in PRIVATE_NAMES.items()
        for name in names
        if not hasattr(instances[kind], name)
    ]


@cache
def _check_version() -> None:
    if missing := missing_private_names():
        raise UnsupportedNatsPy(
            f"nats-py {metadata.version('nats-py')} lacks {', '.join(missing)}: install a version that "
            f"Orchestra supports (pip install 'nats-py{SUPPORTED_VERSIONS}')"
        )


def _allow_websockets() -> None:
    """Give nats-py the modules that it was imported without."""
    import aiohttp
    import multidict

    transport.aiohttp = aiohttp  # type: ignore[attr-defined]
    transport.multidict = multidict  # type: ignore[attr-defined]


class _DirectDelivery:
    """Takes the place of a subscription's future: nats-py then makes no queue and no task for it."""

    def __init__(self, deliver: Callback) -> None:
        self.deliver = deliver

    def cancelled(self) -> bool:
        return True  # nats-py itself delivers nothing


def _text(subject: bytes) -> str | None:
    """A subject that the server has passed on; None where nobody could send to it."""
    try:
        text = subject.decode()
    except UnicodeDecodeError:
        return None
    return text if text.isprintable() else None


class _Client(Client):
    """nats-py's client with the methods replaced that the module's docstring speaks of."""

    def __init__(self) -> None:
        super().__init__()
        self.unwaited_bytes = 0
        """Bytes sent since a publisher last waited for the socket."""
        self._write_scheduled = False

    async def _process_msg(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        name, answer_to = _text(subject), _text(reply)
        if name is None or answer_to is None or len(answer_to) > MAX_REPLY_CHARACTERS:
            BUS_UNREADABLE.inc()
            log.debug("a message on %.99r for a reply on %.99r was dropped", subject, reply)
            return
        subscription = self._subs.get(sid)
        direct: Any = None if subscription is None else subscription._future
        if type(direct) is _DirectDelivery:
            direct.deliver(Message(name, answer_to, data, decode_headers(headers) if headers else None))
        else:
            await super()._process_msg(sid, subject, reply, data, headers)

    async def _process_err(self, err_msg: str) -> None:
        error = nats.errors.Error(f"the server said {err_msg}")
        if "permissions violation" in err_msg:
            await self._error_cb(error)
        else:
            log.warning("reconnecting after a complaint of the NATS server: %s", err_msg)
            await self._process_op_err(error)

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        self.write_pending()  # or the ping overtakes pending commands, and `flush` waits for nothing
        await super()._send_ping(future)

    async def flush(self, timeout: int = 10) -> None:
        """Wait until the server has processed everything sent so far. Raises an error of nats-py.

        Where nats-py's own is cancelled, the answer to its ping ends the loop that reads. On Python 3.11 its
        `asyncio.wait_for` loses a cancellation that comes together with the answer.
        """
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        answered: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(timeout):
                await self._send_ping(answered)
                await asyncio.shield(answered)
        except TimeoutError:
            raise nats.errors.FlushTimeoutError from None

    async def _attempt_reconnect(self) -> None:
        self.abort()  # a socket whose peer does not read never closes in good order
        await super()._attempt_reconnect()

    def abort(self) -> None:
        """Close the socket at once, and drop what it has not sent."""
        writer = getattr(self._transport, "_io_writer", None)
        if writer is not None:
            writer.transport.abort()

    def send(self, subject: str, reply: str, data: bytes, headers: Headers | None) -> None:
        """Queue one message for the next write."""
        if headers:
            block = encode_headers(headers)
            sizes = f"{len(block)} {len(block) + len(data)}"
            command = f"HPUB {subject} {reply} {sizes}\r\n".encode() + block + data + b"\r\n"
        else:
            command = f"PUB {subject} {reply} {len(data)}\r\n".encode() + data + b"\r\n"
        self.send_command(command)

    def send_command(self, command: bytes) -> None:
        """Queue one command of the protocol for the next write."""
        self._pending.append(command)
        self._pending_data_size += len(command)
        self.unwaited_bytes += len(command) + OVERHEAD_BYTES
        if not self._write_scheduled:
            self._write_scheduled = True
            asyncio.get_running_loop().call_soon(self.write_pending)

    def write_pending(self) -> None:
        """Hand all pending commands to the socket. While the server is away they stay pending."""
        self._write_scheduled = False
        if self._pending and self.is_connected and self._transport:
            pending, size = self._pending, self._pending_data_size
            self._pending, self._pending_data_size = [], 0
            try:
                self._transport.writelines(pending)
            except (OSError, RuntimeError):  # the socket is gone; the task that reads from it reconnects
                self._pending, self._pending_data_size = pending, size

    async def wait_for_socket(self) -> None:
        """Wait until the socket has taken most of what was sent."""
        self.unwaited_bytes = 0
        await asyncio.sleep(0)
        self.write_pending()
        if self._transport:
            await self._transport.drain()  # type: ignore[no-untyped-call]

    def server_ids(self) -> tuple[object, object]:
        """The ids of the server and of this client there, both new after a reconnect."""
        return self._server_info.get("server_id"), self._server_info.get("client_id")

    async def subscribe_directly(self, subject: str, queue: str, deliver: Callback) -> NatsPySubscription:
        direct = cast("asyncio.Future[Msg]", _DirectDelivery(deliver))
        return await self._subscribe(subject, queue=queue, future=direct)

    async def subscribe_with_queue(
        self, subject: str, queue: str, handler: Callable[[Message], Awaitable[None]], settings: BusSettings
    ) -> NatsPySubscription:
        async def deliver(raw: Msg) -> None:
            await handler(Message(raw.subject, raw.reply, raw.data, raw.headers))

        return await self._subscribe(
            subject,
            queue=queue,
            cb=deliver,
            pending_msgs_limit=settings.pending_messages,
            pending_bytes_limit=settings.pending_bytes,
        )

    async def _subscribe(self, subject: str, **options: Any) -> NatsPySubscription:
        before = set(self._subs)
        try:
            return await self.subscribe(subject, **options)
        except BaseException:
            for sid in set(self._subs) - before:  # otherwise it would be made at the next reconnect
                if self._subs[sid].subject == subject:
                    del self._subs[sid]
            raise

    async def close_what_is_open(self) -> None:
        if self._flush_queue is not None:  # `connect` has got as far as opening something
            await self.close()


class NatsSubscription:
    """Ends the flow of messages to one handler."""

    def __init__(self, raw: NatsPySubscription) -> None:
        self._raw = raw

    async def unsubscribe(self) -> None:
        """Stop the flow; messages that already arrived are dropped. Harmless without a connection."""
        direct: Any = self._raw._future
        if type(direct) is _DirectDelivery:
            direct.deliver = _ignore
        try:
            await self._raw.unsubscribe()
        except (nats.errors.Error, OSError):
            log.debug("unsubscribe from %s without a connection", self._raw.subject)

    async def drain(self) -> None:
        """Stop the flow once every message that the server already sent has been handled."""
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT_S):
                await self._raw.drain()  # type: ignore[no-untyped-call]
        except (nats.errors.Error, OSError, TimeoutError):
            await self.unsubscribe()


class NatsConnection:
    """One connection to NATS, for `Bus`. It reconnects for ever, and raises only errors of Orchestra."""

    def __init__(self, settings: BusSettings, name: str) -> None:
        _check_version()
        self.settings = settings
        self.name = name
        self._client = _Client()

    async def connect(self, on_disconnect: Callable[[], None], on_reconnect: Callable[[], None]) -> None:
        """Connect once. Raises `BusUnavailable` naming the URL."""

        async def disconnected() -> None:
            on_disconnect()

        async def reconnected() -> None:
            on_reconnect()

        settings = self.settings
        if "ws://" in settings.url or "wss://" in settings.url:
            _allow_websockets()
        try:
            await _within(
                settings.connect_timeout_s,
                self._client.connect(
                    servers=[url.strip() for url in settings.url.split(",")],
                    name=self.name,
                    connect_timeout=max(1, round(settings.connect_timeout_s)),
                    allow_reconnect=True,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=settings.reconnect_wait_s,  # type: ignore[arg-type]
                    ping_interval=settings.ping_interval_s,  # type: ignore[arg-type]
                    max_outstanding_pings=2,
                    pending_size=0,
                    error_cb=self._failed,
                    disconnected_cb=disconnected,
                    reconnected_cb=reconnected,
                ),
            )
        except asyncio.CancelledError:
            await self._client.close_what_is_open()
            raise
        except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
            await self._client.close_what_is_open()
            reason = str(error) or "no answer in time"
            raise BusUnavailable(
                f"no NATS server answers at {settings.url}: {reason}; check that it runs and that the URL is "
                "nats://HOST:PORT"
            ) from error

    @property
    def is_connected(self) -> bool:
        return self._client.is_connected

    @property
    def is_closing(self) -> bool:
        return self._client.is_draining or self._client.is_closed

    @property
    def id(self) -> str:
        """Identifies the present connection to a server; a reconnect changes it."""
        server, client = self._client.server_ids()
        return f"{server}.{client}"

    @property
    def max_payload(self) -> int:
        return self._client.max_payload

    @property
    def servers(self) -> list[str]:
        """`HOST:PORT` of the servers that are known, those in the URL and those of their cluster."""
        return [url.netloc.rpartition("@")[2] for url in self._client.servers]

    def check_message(self, subject: str, reply: str, data: bytes, headers: Headers | None) -> None:
        """Raise what keeps this message from being sent now: see `Bus.post`."""
        client = self._client
        if client._status not in _CAN_SEND:
            raise self.unavailable()
        if len(data) > client.max_payload - MAX_HEADER_BYTES:  # beyond it the server ends the connection
            size = len(data) + (len(encode_headers(headers)) if headers else 0)
            if size > client.max_payload:
                raise PayloadTooLarge(f"a message of {size} bytes exceeds max_payload {client.max_payload}")
        both = subject + reply
        if not subject or len(both) > MAX_SUBJECT_CHARACTERS or " " in both or not both.isprintable():
            raise ValueError(f"{subject[:80]!r} cannot be a subject (reply {reply[:80]!r})")

    def send(self, subject: str, reply: str, data: bytes, headers: Headers | None) -> None:
        """Queue a message that `check_message` has accepted."""
        self._client.send(subject, reply, data, headers)

    def count_local(self, size: int) -> None:
        """Count a message of `size` bytes that skips the server as if it were sent."""
        self._client.unwaited_bytes += size + OVERHEAD_BYTES

    @property
    def should_wait(self) -> bool:
        """Whether a publisher should call `wait_for_socket` now."""
        return self._client.unwaited_bytes > MAX_UNWAITED_BYTES

    async def wait_for_socket(self) -> None:
        """Wait until the socket has taken most of what was sent. Raises `BusUnavailable`."""
        try:
            await self._client.wait_for_socket()
        except OSError as error:
            raise self.unavailable(error) from error

    async def subscribe(
        self,
        subject: str,
        queue: str,
        handler: Callback | Callable[[Message], Awaitable[None]],
    ) -> NatsSubscription:
        """Call a plain function `handler` where the message is read, a coroutine function from a queue.

        Raises ValueError for a `subject` that nats-py refuses, `BusUnavailable` without a connection.
        """
        try:
            if inspect.iscoroutinefunction(handler):
                raw = await self._client.subscribe_with_queue(subject, queue, handler, self.settings)
            else:
                raw = await self._client.subscribe_directly(subject, queue, cast("Callback", handler))
        except nats.errors.BadSubjectError as error:
            raise ValueError(f"{subject!r} cannot be subscribed to") from error
        except (nats.errors.Error, OSError) as error:
            raise self.unavailable(error) from error
        return NatsSubscription(raw)

    async def flush(self) -> None:
        """Wait until the server has processed everything sent so far. Raises `BusUnavailable`."""
        try:
            async with asyncio.timeout(FLUSH_TIMEOUT_S):
                await self._client.flush()
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise self.unavailable(error) from error

    async def close(self, timeout_s: float) -> None:
        """Send what is pending and let handlers finish for up to `timeout_s` seconds, then close."""
        self._client.write_pending()
        try:
            await _within(timeout_s, self._client.drain())
        except (nats.errors.Error, OSError, TimeoutError):
            await self._client.close()

    def abort(self) -> None:
        """Drop the connection to the server, as a network failure does; a reconnect follows. For tests."""
        self._client.abort()

    def unavailable(self, error: Exception | None = None) -> BusUnavailable:
        reason = f": {error}" if error is not None else ""
        return BusUnavailable(f"not connected to NATS at {self.settings.url}{reason}")

    async def _failed(self, error: Exception) -> None:
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


async def _within(seconds: float, call: Coroutine[Any, Any, None]) -> None:
    """Run a call of nats-py for up to `seconds`. Raises TimeoutError.

    It has a task of its own: nats-py swallows a cancellation here and there, and on Python 3.11
    `asyncio.wait_for` loses one that comes together with the result."""
    task = asyncio.get_running_loop().create_task(call)
    try:
        await asyncio.wait({task}, timeout=seconds)
        in_time = task.done()
    finally:
        task.cancel()
        await asyncio.wait({task})
        failure = None if task.cancelled() else task.exception()  # retrieved in any case
    if failure is not None:
        raise failure
    if not in_time:
        raise TimeoutError


def _ignore(message: Message) -> None:
    """The handler of a subscription that has ended."""
