"""Divides the slots of nodes among the dispatchers, by turns, while work of any of them starves."""

from __future__ import annotations

import time
from collections.abc import Callable

from actors.bus.bus import Bus
from actors.cluster.peers import HEARTBEAT_S, PeerGroup
from orchestration.placement import SlotShare

STARVING = "starving"


class SlotSharing:
    """`starves` returns whether work here waits and gets no slot. `on_turn` is called with each new turn.
    While nothing starves, every dispatcher may use every slot, which is faster."""

    def __init__(self, bus: Bus, starves: Callable[[], bool], on_turn: Callable[[SlotShare], None]) -> None:
        self.turn = SlotShare()
        self._starves = starves
        self._on_turn = on_turn
        self.group = PeerGroup(bus, "dispatcher", status=self._status, on_heartbeat=self._take_turn)

    @property
    def name(self) -> str:
        return self.group.name

    @property
    def count(self) -> int:
        """The number of dispatchers, this one included."""
        return len(self.group.peers) + 1

    async def start(self) -> None:
        await self.group.start()

    async def stop(self) -> None:
        await self.group.stop()

    def _status(self) -> str:
        return STARVING if self._starves() else ""

    def _take_turn(self) -> None:
        turn = SlotShare()
        if self._starves() or STARVING in self.group.peers.values():
            rank = sum(name < self.name for name in self.group.peers)
            turn = SlotShare(self.count, rank + int(time.time() / HEARTBEAT_S))
        if turn != self.turn:
            self.turn = turn
            self._on_turn(turn)
