"""One HTTP connection: uvicorn's protocol with limits on what a client may make it hold or wait for.

uvicorn with httptools limits neither the headers of a request, nor the time for them, nor pipelined requests,
nor a response that the client does not read. The limits here are in methods that asyncio (`data_received`),
httptools (`on_headers_complete`, `on_body`, ...) and uvicorn (`on_response_complete`) call by name.
"""

from __future__ import annotations

import asyncio
import math
from array import array
from http import HTTPStatus
from typing import Any

import httptools
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from actors.gateway.coalescing_transport import CoalescingTransport
from actors.gateway.connections import ConnectionMonitor, ConnectionTable, address_of
from actors.gateway.errors import ClientDisconnected, HeaderTimeout, HeadTooLarge, RequestLineTooLong
from actors.gateway.http_context import new_request_id
from actors.gateway.metrics import REFUSED
from actors.openai_api.encoder import error_json
from orchestration.errors import InvalidRequest, OrchestraError

SLICE_BYTES = 4096
"""Maximum bytes per call of the parser: it can make a request of every 20 bytes before it can be stopped."""
LINGER_S = 2.0
"""Time between an error response and the close: closing while bytes arrive resets the connection, and the
client would not see the error."""
BODY_GRACE_S = 2.5
"""Time after `body_timeout_s` to send the error, and for the client to read it."""
CUT_AFTER = 3
"""A connection that accepts no byte for this many `send_timeout_s` is closed, whatever it waits for."""
ONE_REFILL_BYTES = 64 * 1024
"""Bytes that a slow client must read before more are written."""


# The phases of a connection; plain numbers, since each request compares them several times.
IDLE, HEAD, BODY, ANSWER, ENDING = range(5)


class Config(uvicorn.Config):
    """`connections` is the table of the server's connections."""

    def __init__(self, app: Any, connections: ConnectionTable, **options: Any) -> None:
        super().__init__(app, http=HttpConnection, **options)
        self.connections = connections


class HttpConnection(HttpToolsProtocol):
    """A client that exceeds a limit gets 408, 414, 431 or 503 after the responses of its earlier requests.
    Then the connection is closed."""

    config: Config
    transport: CoalescingTransport
    parser: _Parser

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self.parser = _Parser(self)
        self.url = b""
        self.headers = []
        self.table = config.connections
        self.settings = self.table.settings
        self.address = ""
        self._extensions = {"orchestra.connection": self}
        self._phase = IDLE
        self._due = math.inf
        """The deadline of the current phase."""
        self._owed = 0
        """Requests that were read and whose response is not complete."""
        self._held = b""
        """Bytes that were read but not parsed, because `max_pipelined` requests wait."""
        self._lines_bytes = 0
        """Bytes read of the current headers, or of the lines between two chunks of a body, give or take
        `SLICE_BYTES`."""
        self._upgrading = False
        self._last = False
        """Whether the connection closes after the current response."""
        self._refusal: OrchestraError | None = None
        self._monitor: ConnectionMonitor | None = None
        """Of the current request, while its response is generated."""
        self._lost = False
        self._taken = 0
        self._taken_at = self.loop.time()

    # What asyncio calls

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.transport = CoalescingTransport(transport, self.loop)
        super().connection_made(self.transport)
        high = self.settings.stream_buffer_bytes
        transport.set_write_buffer_limits(high, max(0, high - ONE_REFILL_BYTES))
        self.address = address_of(self.client[0]) if self.client else ""
        refusal = self.table.enter(self)
        if refusal is None:
            self._rest()
        elif self.table.will_explain(self):
            self.refuse(refusal)
        else:
            self.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self.table.leave(self)
        self._held = b""
        # With an error, uvicorn would not cancel its timer, which references the connection for a minute.
        super().connection_lost(None)
        self._lost = True
        if self._monitor is not None:
            self._monitor.disconnected()

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        if self._held:
            self._held += data
            return
        self._feed(data)

    # What httptools calls

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade() and self.parser.upgrades:
            self._upgrading = True
            return
        self._upgrading = False
        self._check_head(complete=True)
        self._lines_bytes = 0
        self._phase = BODY
        self._due = self.loop.time() + self.settings.body_timeout_s + BODY_GRACE_S
        self.scope["extensions"] = self._extensions  # type: ignore[typeddict-item]
        super().on_headers_complete()
        self._owed += 1

    def on_body(self, body: bytes) -> None:
        self._lines_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self._upgrading:
            return
        super().on_message_complete()
        if self._owed:
            self._phase, self._due = ANSWER, math.inf
        else:
            self._rest()

    # What uvicorn calls

    def on_response_complete(self) -> None:
        """Start the next request. Uvicorn's method starts a timer for idle connections as well; the table
        checks them without one."""
        if self._last:
            self.transport.close()
        self.server_state.total_requests += 1
        if not self.transport.is_closing():
            self.flow.resume_reading()
            if self.pipeline:
                self._start_asgi_task(*self.pipeline.pop())
        self._owed -= 1
        if self._held:
            held, self._held = self._held, b""
            self._feed(held)
        if self._owed:
            return
        if self._refusal is not None:
            self.refuse(self._refusal)
        elif self._phase == ANSWER:
            self._rest()

    def send_400_response(self, msg: str) -> None:
        self.refuse(self._refusal or InvalidRequest(f"invalid HTTP/1.1 request: {msg}"))

    # What the table and a context call

    @property
    def body_complete(self) -> bool:
        """Whether the body of each request that was read so far is complete."""
        return self._phase != BODY

    def start_monitor(self, monitor: ConnectionMonitor) -> None:
        """Tell `monitor` about the client. Raises `ClientDisconnected` if it has disconnected already."""
        if self._lost:
            raise ClientDisconnected("the client disconnected before its response was complete")
        self._monitor = monitor
        self.flow.resume_reading()  # else the end of the connection would not be seen

    def stop_monitor(self) -> None:
        """Tell the monitor nothing more."""
        self._monitor = None

    def check(self, now: float) -> None:
        """Close the connection if the client does not read, or sends too slowly."""
        if self._monitor is not None:
            self._monitor.check(now)
        sent_bytes = self.transport.sent_bytes
        if sent_bytes != self._taken or not self.transport.unsent_bytes:
            self._taken, self._taken_at = sent_bytes, now
        elif now - self._taken_at > CUT_AFTER * self.settings.send_timeout_s:
            REFUSED.labels("send_timeout_s").inc()
            self.transport.abort()
            return
        if now < self._due or (self._refusal is not None and self._owed):
            return
        if self.transport.paused:  # the delay is ours, not the client's
            self._due = now + self.settings.head_timeout_s
        elif self._phase == HEAD:
            limit = self.settings.head_timeout_s
            REFUSED.labels("head_timeout_s").inc()
            self.refuse(HeaderTimeout(f"the request headers did not arrive within head_timeout_s {limit:g}"))
        elif self._phase == BODY:
            REFUSED.labels("body_timeout_s").inc()
            self.transport.abort()
        else:
            self.close()

    def close(self) -> None:
        """Close the connection once all written bytes are sent."""
        self.transport.close()

    def finish_unread(self) -> None:
        """Accept the rest of the response although the client does not read, and close after it."""
        if self.flow.write_paused:
            self._last = True
            self.resume_writing()

    def refuse(self, error: OrchestraError) -> None:
        """Stop reading, and close the connection with `error` after the responses of earlier requests."""
        self._refusal = error
        self._held = b""
        if self._owed or self._phase == ENDING or self.transport.is_closing():
            return
        self._phase, self._due = ENDING, self.loop.time() + LINGER_S
        body = error_json(error)
        retry = "retry-after: 1\r\n" if error.retry_after_s is not None else ""
        self.transport.write(
            f"HTTP/1.1 {error.status} {HTTPStatus(error.status).phrase}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n{retry}"
            f"x-request-id: {new_request_id().decode()}\r\n"
            "cache-control: no-store\r\nconnection: close\r\n\r\n".encode()
            + body
        )
        self.transport.write_eof()

    # Inside

    def _feed(self, data: bytes) -> None:
        """Parse `data` until `max_pipelined` requests wait; store the rest and pause reading."""
        if len(data) <= SLICE_BYTES and not self._owed:
            self._parse(data)
            return
        view = memoryview(data)
        for start in range(0, len(data), SLICE_BYTES):
            if self._owed > self.settings.max_pipelined:
                self._held = bytes(view[start:])
                self._due = math.inf
                break
            self._parse(view[start : start + SLICE_BYTES])
            if self._refusal is not None:
                break
        self.transport.hold_reading(bool(self._held))

    def _parse(self, data: bytes | memoryview[int]) -> None:
        if self._phase not in (HEAD, BODY):
            self.table.idle.pop(self, None)
            self._phase, self._due = HEAD, self.loop.time() + self.settings.head_timeout_s
        self._lines_bytes += len(data)
        super().data_received(data)  # type: ignore[arg-type]  # httptools takes any buffer
        if self._refusal is None and self._lines_bytes > SLICE_BYTES:
            try:
                self._check_head(complete=False)
            except InvalidRequest as error:
                self.refuse(error)

    def _check_head(self, *, complete: bool) -> None:
        """Raise `InvalidRequest` if the headers so far, or the lines between the chunks of a body, exceed a
        limit. From a callback of httptools the error comes back through `send_400_response`."""
        settings = self.settings
        if len(self.url) > settings.max_request_line_bytes:
            self._exceeds(RequestLineTooLong, "max_request_line_bytes", settings.max_request_line_bytes)
        if len(self.headers) > settings.max_headers:
            self._exceeds(HeadTooLarge, "max_headers", settings.max_headers)
        if self._lines_bytes > settings.max_header_bytes:
            size = self._lines_bytes
            if complete:
                size = sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > settings.max_header_bytes:
                self._exceeds(HeadTooLarge, "max_header_bytes", settings.max_header_bytes)

    def _exceeds(self, kind: type[InvalidRequest], name: str, limit: int) -> None:
        REFUSED.labels(name).inc()
        self._refusal = kind(f"the head of the request exceeds gateway.{name} {limit}")
        raise self._refusal

    def _rest(self) -> None:
        """Become idle: all requests are answered."""
        self._phase, self._due = IDLE, self.loop.time() + self.settings.idle_connection_s
        self.table.idle[self] = None


class _Parser(httptools.HttpRequestParser):
    """Reads a request that offers an upgrade, such as Java's client to HTTP/2, as a plain HTTP/1.1 request.
    httptools alone would treat its body as the other protocol."""

    def __init__(self, connection: HttpConnection) -> None:
        super().__init__(connection)
        # uvicorn needs it to answer the first of several requests in one packet.
        self.set_dangerous_leniencies(lenient_data_after_close=True)
        self.connection = connection

    @property
    def upgrades(self) -> bool:
        """Whether the complete headers ask for another protocol, so that they are parsed again without it."""
        return bool(self.should_upgrade()) and self.get_method() != b"CONNECT"

    def feed_data(self, data: bytes | bytearray | memoryview[int] | array[int]) -> None:
        try:
            super().feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self.upgrades:
                raise
            connection = self.connection
            head = [self.get_method(), b" ", connection.url, b" HTTP/1.1\r\n"]
            for name, value in connection.headers:
                if name not in (b"upgrade", b"http2-settings"):
                    head += [name, b": ", value, b"\r\n"]
            connection.parser = _Parser(connection)
            connection.parser.feed_data(b"".join([*head, b"\r\n"]))
            connection.parser.feed_data(data[upgrade.args[0] :])
