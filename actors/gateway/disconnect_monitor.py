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

    For a stream it also sends a comment after `keep_alive_s` of silence. It raises `SlowReader` when the
    client does not read for `send_timeout_s`, and `DeadlineExceeded` when the client has not read everything
    after `limit_s` seconds.
    """

    def __init__(
        self, context: HttpContext, settings: GatewaySettings, *, stream: bool, limit_s: float
    ) -> None:
        self.context = context
        self.settings = settings
        self.stream = stream
        self.limit_s = limit_s
        self._error: OrchestraError | None = None
        self._block: asyncio.Task[object] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> DisconnectMonitor:
        self._block = asyncio.current_task()
        self._watching = asyncio.get_running_loop().create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._watching is not None
        assert self._block is not None
        self._watching.cancel()
        if self._error is None:
            return
        left = self._block.uncancel()
        if kind is None or (kind is asyncio.CancelledError and left == 0):
            raise self._error from None

    async def _watch(self) -> None:
        if self.stream:
            self._error = await self._stream_ends()
        else:
            while (await self.context.receive())["type"] != "http.disconnect":
                pass
            self._error = ClientDisconnected("the client disconnected before its response was complete")
        if self._block is not None:
            self._block.cancel()

    async def _stream_ends(self) -> OrchestraError:
        """Return the error to end the block with."""
        context, settings = self.context, self.settings
        context.sent_at = now = time.monotonic()
        end = now + self.limit_s
        while True:
            if context.sending:
                look_at = min(context.sent_at + settings.send_timeout_s, end)
                if now >= look_at:
                    return self._unread(now >= end)
            elif now >= context.sent_at + settings.keep_alive_s:
                try:
                    async with asyncio.timeout(settings.send_timeout_s):
                        await context.comment(b"keep-alive")
                except TimeoutError:
                    return self._unread(now >= end)
                look_at = now
            elif now >= end + GRACE_S:
                return self._unread(True)
            else:
                comment_at = context.sent_at + settings.keep_alive_s
                look_at = min(comment_at, now + settings.send_timeout_s, end + GRACE_S * (now >= end))
            if await self._left(look_at - now):
                return ClientDisconnected("the client disconnected before its response was complete")
            now = time.monotonic()

    async def _left(self, within_s: float) -> bool:
        """Whether the client disconnected within that time."""
        try:
            async with asyncio.timeout(within_s):
                message = await self.context.receive()
            return bool(message["type"] == "http.disconnect")
        except TimeoutError:
            return False

    def _unread(self, too_late: bool) -> OrchestraError:
        settings = self.settings
        if too_late:
            return DeadlineExceeded(f"the client has not read its answer within {self.limit_s:.1f} s")
        return SlowReader(
            f"the client left stream_buffer_bytes {settings.stream_buffer_bytes} of its answer unread "
            f"for send_timeout_s {settings.send_timeout_s:g}"
        )
