"""One HTTP request and its response, on plain ASGI."""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Awaitable, Callable, MutableMapping
from random import getrandbits
from typing import TYPE_CHECKING, Any

from actors.gateway.body_memory import BodyMemory
from actors.gateway.connections import ClientConnection
from actors.gateway.errors import (
    BodyMemoryExhausted,
    ClientDisconnected,
    InvalidApiKey,
    MethodNotAllowed,
    RequestTimeout,
    UnsupportedEncoding,
)
from actors.gateway.request_span import UNTRACED
from actors.openai_api.encoder import error_json
from orchestration.errors import OrchestraError, PayloadTooLarge

if TYPE_CHECKING:
    from actors.gateway.admitted_request import AdmittedRequest

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Header = tuple[bytes, bytes]

JSON: Header = (b"content-type", b"application/json")
EVENT_STREAM: Header = (b"content-type", b"text/event-stream; charset=utf-8")
NOT_CACHED: Header = (b"cache-control", b"no-store")
NOT_BUFFERED: Header = (b"x-accel-buffering", b"no")
CLOSE: Header = (b"connection", b"close")
ANSWER_PART_BYTES = 256 * 1024
"""A larger response is written in parts, each after the client has read most of the parts before it."""
LINGER_BYTES = 32 * 2**20
LINGER_S = 2.0
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:@=+/-]{1,128}")


def new_request_id() -> bytes:
    """A new request id, for a client that sent none."""
    return b"req_%032x" % getrandbits(128)


class HttpContext:
    """`status` is 0 until the response begins; `streaming` is true while a stream is open. The `extra`
    headers are sent with any response. `caller` is the caller's name, '' on an open route. `span` has the
    traceparent of its work. `request_id` is the client's own if it sent one of up to 128 plain
    characters. The body's bytes count in `body_memory` until `close`.
    """

    __slots__ = (
        "body_bytes",
        "body_memory",
        "caller",
        "connection",
        "error_sent",
        "extra",
        "headers",
        "method",
        "path",
        "receive",
        "request",
        "request_id",
        "scope",
        "send",
        "sending",
        "sent_at",
        "span",
        "started",
        "status",
        "streaming",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, body_memory: BodyMemory) -> None:
        self.scope = scope
        self.receive = receive
        self.send = send
        self.body_memory = body_memory
        self.connection: ClientConnection = scope["extensions"]["orchestra.connection"]
        self.body_bytes = 0
        """Bytes of the body read so far."""
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        client_id = self.headers.get(b"x-request-id", b"")
        self.request_id = client_id if _REQUEST_ID.fullmatch(client_id) else new_request_id()
        self.extra: list[Header] = [(b"x-request-id", self.request_id)]
        self.started = time.perf_counter()
        self.request: AdmittedRequest | None = None
        """The request, once it was parsed, where it asks for an answer of a model or a pattern."""
        self.error_sent: OrchestraError | None = None
        """The error that ended the request."""
        self.caller = ""
        self.span = UNTRACED
        self.status = 0
        self.streaming = False
        self.sending = False
        """Whether an event waits, since `sent_at`, for the client to read the events before it."""
        self.sent_at = 0.0

    @property
    def path_params(self) -> dict[str, str]:
        """The parameters that the router took from the path."""
        params: dict[str, str] = self.scope.get("path_params", {})
        return params

    def header(self, name: bytes) -> str:
        """A request header by its lower-case name, or ''."""
        return self.headers.get(name, b"").decode("latin-1")

    async def body(self, limit: int, timeout_s: float, limit_name: str = "gateway.max_body_bytes") -> bytes:
        """Return the request's body. `limit_name` is what an error calls the limit.

        Raises `PayloadTooLarge` before reading more than `limit` bytes, `RequestTimeout` after `timeout_s`
        seconds, `UnsupportedEncoding` for a compressed body, `BodyMemoryExhausted`, `ClientDisconnected`.
        """
        declared = self.headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            raise PayloadTooLarge.of(int(declared), limit, limit_name)
        if self.connection.body_complete:  # as it is for small bodies: no timer
            body = await self._read(limit, limit_name)
        else:
            body = await self._read_within(limit, timeout_s, limit_name)
        encoding = self.header(b"content-encoding").strip()
        if encoding.lower() not in ("", "identity"):
            raise UnsupportedEncoding(
                f"Content-Encoding {encoding[:40]!r} is not supported: send the body uncompressed",
                param="Content-Encoding",
            )
        return body

    async def _read_within(self, limit: int, timeout_s: float, limit_name: str) -> bytes:
        task = asyncio.current_task()
        assert task is not None
        late: list[bool] = []
        timer = asyncio.get_running_loop().call_later(timeout_s, _interrupt, task, late)
        try:
            return await self._read(limit, limit_name)
        except asyncio.CancelledError:
            if late and task.uncancel() == 0:
                raise RequestTimeout(f"the request's body did not arrive within {timeout_s:g} s") from None
            raise
        finally:
            timer.cancel()

    async def _read(self, limit: int, limit_name: str) -> bytes:
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise ClientDisconnected("the client disconnected before its request was complete")
            part: bytes = message.get("body", b"")
            more = message.get("more_body", False)
            size += len(part)
            if size > limit:
                raise PayloadTooLarge(f"the body exceeds {limit_name} {limit}")
            self.body_memory.grow(self.body_bytes, size)
            self.body_bytes = size
            if not more and not parts:
                return part
            parts.append(part)
        return b"".join(parts)

    def close(self) -> None:
        """Release the memory of the body."""
        self.body_memory.free(self.body_bytes)
        self.body_bytes = 0

    async def answer(self, status: int, body: bytes, *headers: Header, kind: Header = JSON) -> None:
        """Send the complete response."""
        self.status = status
        about = [] if status == 204 else [kind, (b"content-length", b"%d" % len(body))]
        await self.send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*about, NOT_CACHED, *self.extra, *headers],
            }
        )
        last = max(0, len(body) - 1) // ANSWER_PART_BYTES * ANSWER_PART_BYTES
        for start in range(0, last, ANSWER_PART_BYTES):
            part = body[start : start + ANSWER_PART_BYTES]
            await self.send({"type": "http.response.body", "body": part, "more_body": True})
        await self.send({"type": "http.response.body", "body": body[last:]})

    async def error(self, error: OrchestraError) -> None:
        """Send the complete response of a request that failed before its response began."""
        headers: list[Header] = []
        if error.retry_after_s is not None:
            headers.append((b"retry-after", b"%d" % max(1, math.ceil(error.retry_after_s))))
        if isinstance(error, InvalidApiKey):
            headers.append((b"www-authenticate", b"Bearer"))
        if isinstance(error, MethodNotAllowed):
            headers.append((b"allow", error.allowed.encode()))
        if isinstance(error, PayloadTooLarge | RequestTimeout | BodyMemoryExhausted):
            await self._answer_and_linger(error, headers)
        else:
            await self.answer(error.status, error_json(error), *headers)

    async def _answer_and_linger(self, error: OrchestraError, headers: list[Header]) -> None:
        """Answer and close the connection, after reading and discarding what the client still sends: closing
        a socket with unread bytes resets it, and the client would not see the response."""
        self.status = error.status
        body = error_json(error)
        length = (b"content-length", b"%d" % len(body))
        head = [JSON, length, NOT_CACHED, CLOSE, *self.extra, *headers]
        await self.send({"type": "http.response.start", "status": error.status, "headers": head})
        await self.send({"type": "http.response.body", "body": body, "more_body": True})
        discarded = 0
        try:
            async with asyncio.timeout(LINGER_S):
                while discarded < LINGER_BYTES:
                    message = await self.receive()
                    discarded += len(message.get("body", b""))
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            pass
        await self.send({"type": "http.response.body", "body": b""})

    async def begin_stream(self) -> None:
        """Start a stream of server-sent events, unless the response has begun."""
        if self.status:
            return
        self.status = 200
        self.streaming = True
        await self.send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [EVENT_STREAM, NOT_CACHED, NOT_BUFFERED, *self.extra],
            }
        )

    async def event(self, data: bytes, head: bytes = b"") -> None:
        """Send one event. `head` has the lines before its data, such as its id."""
        if not self.status:
            await self.begin_stream()
        self.sent_at, self.sending = time.monotonic(), True
        await self.send(
            {"type": "http.response.body", "body": b"%bdata: %b\n\n" % (head, data), "more_body": True}
        )
        self.sending = False

    async def comment(self, text: bytes) -> None:
        """Send a comment, which clients ignore."""
        self.sent_at, self.sending = time.monotonic(), True
        await self.begin_stream()
        await self.send({"type": "http.response.body", "body": b": %b\n\n" % text, "more_body": True})
        self.sending = False

    async def fail_stream(self, error: OrchestraError) -> None:
        """End the stream with `error`, without waiting for a client that does not read."""
        self.connection.finish_unread()
        await self.event(error_json(error))
        await self.end_stream()

    async def end_stream(self, last: bytes = b"") -> None:
        """Send `last` unchanged, and end the response."""
        self.streaming = False
        await self.send({"type": "http.response.body", "body": last})


def _interrupt(task: asyncio.Task[object], late: list[bool]) -> None:
    late.append(True)
    task.cancel()
