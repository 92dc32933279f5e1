"""Watches over the client of a request while an answer is made."""

from __future__ import annotations

import asyncio
import time
from types import TracebackType

from actors.gateway.exchange import Exchange


class Watch:
    """A block that ends early, without an error, when the client hangs up; look at `gone` after it.

    For a stream it also sends a comment whenever nothing was sent for `keep_alive_s` seconds, and a client
    that keeps the connection but has not read it all when `limit_s` seconds have passed counts as gone.
    """

    def __init__(self, exchange: Exchange, *, stream: bool, keep_alive_s: float, limit_s: float) -> None:
        self.exchange = exchange
        self.stream = stream
        self.keep_alive_s = keep_alive_s
        self.limit_s = limit_s
        self.gone = False
        self._block: asyncio.Task[object] | None = None
        self._watching: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Watch:
        self._block = asyncio.current_task()
        self._watching = asyncio.get_running_loop().create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        assert self._watching is not None
        assert self._block is not None
        self._watching.cancel()
        if not self.gone:
            return False
        left = self._block.uncancel()
        return kind is asyncio.CancelledError and left == 0

    async def _watch(self) -> None:
        if self.stream:
            await self._hung_up_or_stalled()
        else:
            while (await self.exchange.receive())["type"] != "http.disconnect":
                pass
        self.gone = True
        if self._block is not None:
            self._block.cancel()

    async def _hung_up_or_stalled(self) -> None:
        exchange = self.exchange
        exchange.sent_at = time.monotonic()
        end = exchange.sent_at + self.limit_s
        while True:
            quiet = exchange.sent_at + self.keep_alive_s
            try:
                async with asyncio.timeout(min(quiet, end) - time.monotonic()):
                    message = await exchange.receive()
                if message["type"] == "http.disconnect":
                    return
            except TimeoutError:
                now = time.monotonic()
                if now >= end:
                    return
                if now >= exchange.sent_at + self.keep_alive_s:
                    await exchange.comment(b"keep-alive")
