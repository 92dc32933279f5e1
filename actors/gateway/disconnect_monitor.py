"""Monitors the client of a request while its response is generated."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from actors.gateway.errors import ClientDisconnected, SlowReader
from actors.gateway.http_context import HttpContext
from actors.gateway.settings import GatewaySettings
from orchestration.errors import DeadlineExceeded, OrchestraError

GRACE_S = 5.0
"""Time after the deadline for the work to report its own end."""


class DisconnectMonitor:
    """A context manager that raises `ClientDisconnected` in its block when the client disconnects.

    The connection calls it: a request needs neither a task nor a timer of its own.
    """

    def __init__(self, context: HttpContext) -> None:
        self.context = context
        self._error: OrchestraError | None = None
        self._block: asyncio.Task[object] | None = None

    def __enter__(self) -> None:
        self._block = asyncio.current_task()
        self.context.connection.start_monitor(self)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.context.connection.stop_monitor()
        if self._error is None:
            return
        assert self._block is not None
        left = self._block.uncancel()
        if kind is None or (kind is asyncio.CancelledError and left == 0):
            raise self._error from None

    def disconnected(self) -> None:
        """The client disconnected."""
        self._end(ClientDisconnected("the client disconnected before its response was complete"))

    def check(self, now: float) -> None:
        """Called several times a second."""

    def _end(self, error: OrchestraError) -> None:
        """End the block with `error`."""
        if self._error is None and self._block is not None:
            self._error = error
            self._block.cancel()


class StreamMonitor(DisconnectMonitor):
    """Sends a comment after `keep_alive_s` of silence too. It raises `SlowReader` when the client does not
    read for `send_timeout_s`, and `DeadlineExceeded` when the client has not read everything after `limit_s`
    seconds."""

    def __init__(self, context: HttpContext, settings: GatewaySettings, *, limit_s: float) -> None:
        super().__init__(context)
        self.settings = settings
        self.limit_s = limit_s
        context.sent_at = time.monotonic()
        self._end_at = context.sent_at + limit_s
        self._comment: asyncio.Task[None] | None = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._comment is not None:
            self._comment.cancel()
        super().__exit__(kind, error, trace)

    def check(self, now: float) -> None:
        """Send a comment, or end the block, if it is time."""
        context, settings, end = self.context, self.settings, self._end_at
        if context.sending:
            if now >= min(context.sent_at + settings.send_timeout_s, end):
                self._end(self._unread(now >= end))
        elif now >= end + GRACE_S:
            self._end(self._unread(True))
        elif now >= context.sent_at + settings.keep_alive_s:
            context.sent_at = now
            self._comment = asyncio.get_running_loop().create_task(context.comment(b"keep-alive"))

    def _unread(self, too_late: bool) -> OrchestraError:
        settings = self.settings
        if too_late:
            return DeadlineExceeded(f"the client has not read its answer within {self.limit_s:.1f} s")
        return SlowReader(
            f"the client left stream_buffer_bytes {settings.stream_buffer_bytes} of its answer unread "
            f"for send_timeout_s {settings.send_timeout_s:g}"
        )
