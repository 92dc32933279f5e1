"""Which other gateways are there."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from secrets import token_hex

from actors.bus.bus import Bus, Message, Subscription
from orchestration.errors import BusUnavailable, DeadlineExceeded, NoResponders

log = logging.getLogger(__name__)

HELLO = "gateways.hello"
"""Where one that starts says its name, and is answered once the others are ready for it."""
HERE = "gateways.here"
"""Where each says its name, again and again, and `-` before it when it leaves."""
BEAT_S = 1.0
GONE_S = 5.0
HELLO_S = 2.0
MAX_PEERS = 1_000


class PeerGroup:
    """`on_change` is called when `others` has changed, and waited for before a newcomer is answered."""

    def __init__(self, bus: Bus, on_change: Callable[[], Awaitable[None]]) -> None:
        self.bus = bus
        self.name = token_hex(6)
        self._on_change = on_change
        self._heard: dict[str, float] = {}
        self._began = time.monotonic()
        self._subscriptions: list[Subscription] = []
        self._beating: asyncio.Task[None] | None = None

    @property
    def others(self) -> set[str]:
        return set(self._heard)

    @property
    def settled(self) -> bool:
        """Whether this one has listened for long enough to know who is not there."""
        return time.monotonic() - self._began > GONE_S

    async def start(self) -> None:
        """Known to the others when it returns; at once where there are none."""
        self._subscriptions.append(await self.bus.subscribe(HERE, self._here))
        try:
            await self.bus.request(HELLO, self.name.encode(), timeout=HELLO_S)
        except NoResponders:
            pass
        except DeadlineExceeded:
            log.warning("other gateways do not answer; limits that are shared with them may not hold yet")
        self._subscriptions.append(await self.bus.subscribe(HELLO, self._hello))
        self.bus.on_reconnect.append(self._grant_grace)
        self._beating = asyncio.get_running_loop().create_task(self._beat())

    async def stop(self) -> None:
        if self._beating is not None:
            self._beating.cancel()
        if self._grant_grace in self.bus.on_reconnect:
            self.bus.on_reconnect.remove(self._grant_grace)
        self._say(f"-{self.name}")
        for subscription in self._subscriptions:
            await subscription.unsubscribe()

    async def _hello(self, message: Message) -> None:
        await self._note(message.data.decode(errors="replace"))
        self._say(self.name)
        await self.bus.publish(message.reply, self.name.encode())

    async def _here(self, message: Message) -> None:
        said = message.data.decode(errors="replace")
        if said.startswith("-"):
            if self._heard.pop(said[1:], None) is not None:
                await self._on_change()
        else:
            await self._note(said)

    async def _note(self, name: str) -> None:
        fresh = name not in self._heard
        if name == self.name or (fresh and len(self._heard) >= MAX_PEERS):
            return
        self._heard[name] = time.monotonic()
        if fresh:
            self._say(self.name)
            await self._on_change()

    def _say(self, what: str) -> None:
        try:
            self.bus.post(HERE, what.encode())
        except BusUnavailable as error:
            log.debug("cannot say that this gateway is there: %s", error)

    def _grant_grace(self) -> None:
        """While NATS was away, or this process slept, nobody could be heard."""
        self._heard = dict.fromkeys(self._heard, time.monotonic())

    async def _beat(self) -> None:
        woke = time.monotonic()
        while True:
            self._say(self.name)
            await asyncio.sleep(BEAT_S)
            slept, woke = time.monotonic() - woke, time.monotonic()
            if slept > GONE_S / 2:
                self._grant_grace()
            if not self.bus.connected:
                continue
            late = woke - GONE_S
            gone = [name for name, heard in self._heard.items() if heard < late]
            for name in gone:
                log.warning("gateway %s has not been heard of for %.0f s", name, GONE_S)
                del self._heard[name]
            if gone:
                await self._on_change()
