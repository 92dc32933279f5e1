"""One HTTP connection: uvicorn's protocol with limits on what a client may make it hold or wait for.

uvicorn with httptools bounds neither the head of a request, nor the time for it, nor pipelined requests, nor
an answer that nobody reads. Everything here is done by methods that asyncio (`data_received`), httptools
(`on_headers_complete`, `on_body`, ...) and uvicorn (`on_response_complete`) call by name.
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
from actors.gateway.connections import ConnectionTable, address_of
from actors.gateway.errors import HeaderTimeout, HeadTooLarge, RequestLineTooLong
from actors.gateway.http_context import new_request_id
from actors.gateway.metrics import REFUSED
from actors.openai_api.encoder import error_json
from orchestration.errors import InvalidRequest, OrchestraError

SLICE_BYTES = 4096
"""Given to the parser at once: it makes a request of every 20 bytes, before anybody can stop it."""
LINGER_S = 2.0
"""A socket that is closed while bytes arrive is reset, and the client would not see why."""
BODY_GRACE_S = 2.5
"""Beyond `body_timeout_s`, for the answer that says so, and the time to read it."""
CUT_AFTER = 3
"""Times `send_timeout_s` without a byte taken, after which a connection is cut whatever it waits for."""
ONE_REFILL_BYTES = 64 * 1024
"""What a slow client must take before more is written."""


# What a connection is at; plain numbers, since they are looked at several times for each request.
IDLE, HEAD, BODY, ANSWER, ENDING = range(5)


class Config(uvicorn.Config):
    """`connections` is the table that the server's connections are held in."""

    def __init__(self, app: Any, connections: ConnectionTable, **options: Any) -> None:
        super().__init__(app, http=HttpConnection, **options)
        self.connections = connections


class HttpConnection(HttpToolsProtocol):
    """At a limit the client hears 408, 414, 431 or 503, after the answers that it is owed, and the connection
    ends."""

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
        """When the client must have done what it is at."""
        self._owed = 0
        """Requests read whose answer is not complete."""
        self._held = b""
        """Read, and not parsed yet: enough requests wait."""
        self._lines_bytes = 0
        """Read of a head, or of the lines between two parts of a body, to within `SLICE_BYTES`."""
        self._upgrading = False
        self._last = False
        """The connection ends with the answer that is given."""
        self._refusal: OrchestraError | None = None
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
        # Told of an error, uvicorn leaves its timer, which holds the connection for a minute.
        super().connection_lost(None)

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
        self._check_head(whole=True)
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
        if self._last:
            self.transport.close()
        super().on_response_complete()
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
        self.refuse(self._refusal or InvalidRequest(f"not a request of HTTP/1.1: {msg}"))

    # What the table and an exchange call

    def check(self, now: float) -> None:
        """Close the connection if the client does not read, or is late with what it sends."""
        sent_bytes = self.transport.sent_bytes
        if sent_bytes != self._taken or not self.transport.unsent_bytes:
            self._taken, self._taken_at = sent_bytes, now
        elif now - self._taken_at > CUT_AFTER * self.settings.send_timeout_s:
            REFUSED.labels("send_timeout_s").inc()
            self.transport.abort()
            return
        if now < self._due or (self._refusal is not None and self._owed):
            return
        if self.transport.paused:  # it is not the client who is late
            self._due = now + self.settings.head_timeout_s
        elif self._phase == HEAD:
            limit = self.settings.head_timeout_s
            REFUSED.labels("head_timeout_s").inc()
            self.refuse(
                HeaderTimeout(f"the head of the request did not arrive within head_timeout_s {limit:g}")
            )
        elif self._phase == BODY:
            REFUSED.labels("body_timeout_s").inc()
            self.transport.abort()
        else:
            self.close()

    def close(self) -> None:
        """Close it once what was written is sent."""
        self.transport.close()

    def wait_for_nobody(self) -> None:
        """Take the rest of the answer though the client has not read what was written, and hang up then."""
        if self.flow.write_paused:
            self._last = True
            self.resume_writing()

    def refuse(self, error: OrchestraError) -> None:
        """Read no more, and end the connection with `error` once all answers that are owed are given."""
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
        """Parse `data`, up to where enough requests wait for their answer; hold the rest and read no more."""
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
                self._check_head(whole=False)
            except InvalidRequest as error:
                self.refuse(error)

    def _check_head(self, *, whole: bool) -> None:
        """Raises what is wrong with the head so far, or with the lines between the parts of a body. Raised in
        a call of httptools, it comes back through `send_400_response`."""
        settings = self.settings
        if len(self.url) > settings.max_request_line_bytes:
            self._exceeds(RequestLineTooLong, "max_request_line_bytes", settings.max_request_line_bytes)
        if len(self.headers) > settings.max_headers:
            self._exceeds(HeadTooLarge, "max_headers", settings.max_headers)
        if self._lines_bytes > settings.max_header_bytes:
            size = self._lines_bytes
            if whole:
                size = sum(len(name) + len(value) + 4 for name, value in self.headers)
            if size > settings.max_header_bytes:
                self._exceeds(HeadTooLarge, "max_header_bytes", settings.max_header_bytes)

    def _exceeds(self, kind: type[InvalidRequest], name: str, limit: int) -> None:
        REFUSED.labels(name).inc()
        self._refusal = kind(f"the head of the request exceeds {name} {limit}")
        raise self._refusal

    def _rest(self) -> None:
        """Nothing is asked and nothing owed."""
        self._phase, self._due = IDLE, self.loop.time() + self.settings.idle_connection_s
        self.table.idle[self] = None


class _Parser(httptools.HttpRequestParser):
    """Reads a request that would like another protocol, such as HTTP/2 as Java's client asks for at first, as
    one of HTTP/1.1: httptools alone takes its body for that other protocol."""

    def __init__(self, connection: HttpConnection) -> None:
        super().__init__(connection)
        # uvicorn needs it to answer the first of several requests in one packet.
        self.set_dangerous_leniencies(lenient_data_after_close=True)
        self.connection = connection

    @property
    def upgrades(self) -> bool:
        """Whether the head that is complete asks for another protocol, and is to be read once more."""
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
