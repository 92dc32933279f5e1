"""How many dispatchers there are, so that each takes its share of the slots and no more at once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from secrets import token_hex

from actors.runtime.bus import Bus, Message, Subscription
from orchestration.errors import BusUnavailable

log = logging.getLogger(__name__)

HERE = "placement.here"
"""Where each says that it is there, with its name as the body."""
INTERVAL_S = 1.0
GONE_S = 3.5
MAX_PEERS = 10_000


class Peers:
    """`on_count` hears of each new number of dispatchers, this one included."""

    def __init__(self, bus: Bus, on_count: Callable[[int], None]) -> None:
        self.bus = bus
        self.name = token_hex(6)
        self.count = 1
        self._on_count = on_count
        self._heard: dict[str, float] = {}
        self._subscription: Subscription | None = None
        self._saying: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._subscription = await self.bus.subscribe(HERE, self._here)
        self._saying = asyncio.get_running_loop().create_task(self._say())

    async def stop(self) -> None:
        if self._saying is not None:
            self._saying.cancel()
        if self._subscription is not None:
            await self._subscription.unsubscribe()

    async def _say(self) -> None:
        while True:
            try:
                self.bus.post(HERE, self.name.encode())
            except BusUnavailable as error:
                log.debug("cannot say that this dispatcher is there: %s", error)
            since = time.monotonic() - GONE_S
            self._heard = {name: at for name, at in self._heard.items() if at > since}
            self._tell()
            await asyncio.sleep(INTERVAL_S)

    def _here(self, message: Message) -> None:
        name = message.data.decode(errors="replace")
        if name != self.name and (name in self._heard or len(self._heard) < MAX_PEERS):
            self._heard[name] = time.monotonic()
            self._tell()

    def _tell(self) -> None:
        if self.count != len(self._heard) + 1:
            self.count = len(self._heard) + 1
            self._on_count(self.count)
