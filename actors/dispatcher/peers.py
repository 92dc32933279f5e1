"""Who else dispatches, and whether their work starves, so that each then keeps to its share of the slots."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from secrets import token_hex

from actors.bus.bus import Bus, Message, Subscription
from orchestration.errors import BusUnavailable
from orchestration.placement import Turn

log = logging.getLogger(__name__)

HERE = "placement.here"
"""Where each says that it is there: its name, and a `!` while it starves."""
INTERVAL_S = 1.0
GONE_S = 3.5
MAX_PEERS = 10_000


class Peers:
    """`starves` says whether work waits here that gets no slot. While it waits anywhere, `on_turn` hears of
    each turn; otherwise that all slots are open to all, who are quicker so."""

    def __init__(self, bus: Bus, starves: Callable[[], bool], on_turn: Callable[[Turn], None]) -> None:
        self.bus = bus
        self._starves = starves
        self.name = token_hex(6)
        self.turn = Turn()
        self._on_turn = on_turn
        self.heard: dict[str, tuple[float, bool]] = {}
        """When each other one was heard last, and whether it starved."""
        self._subscription: Subscription | None = None
        self._saying: asyncio.Task[None] | None = None

    @property
    def count(self) -> int:
        """Dispatchers, this one too."""
        return len(self.heard) + 1

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
            starves = self._starves()
            try:
                self.bus.post(HERE, f"{self.name}{'!' * starves}".encode())
            except BusUnavailable as error:
                log.debug("cannot say that this dispatcher is there: %s", error)
            since = time.monotonic() - GONE_S
            self.heard = {name: seen for name, seen in self.heard.items() if seen[0] > since}
            self._take_turn(starves)
            await asyncio.sleep(INTERVAL_S)

    def _here(self, message: Message) -> None:
        said = message.data.decode(errors="replace")
        name = said.rstrip("!")
        if name != self.name and (name in self.heard or len(self.heard) < MAX_PEERS):
            self.heard[name] = (time.monotonic(), said != name)
            if said != name:
                self._take_turn(True)

    def _take_turn(self, starves: bool) -> None:
        turn = Turn()
        if starves or any(starving for _, starving in self.heard.values()):
            rank = sum(name < self.name for name in self.heard)
            turn = Turn(self.count, rank + int(time.time() / INTERVAL_S))
        if turn != self.turn:
            self.turn = turn
            self._on_turn(turn)
