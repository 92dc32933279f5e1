"""Divides the slots of nodes among the dispatchers while work starves at any of them."""

from __future__ import annotations

import time
from collections.abc import Callable

from actors.bus.bus import Bus
from actors.cluster.peers import HEARTBEAT_S, PeerGroup
from orchestration.placement import SlotShare

STARVING = "starving"


class SlotSharing:
    """`is_starving` returns whether work waits here without a slot. `on_change` is called with each new
    share.

    While nothing starves, every dispatcher may use every slot, which is faster.
    """

    def __init__(
        self, bus: Bus, is_starving: Callable[[], bool], on_change: Callable[[SlotShare], None]
    ) -> None:
        self.slot_share = SlotShare()
        self._is_starving = is_starving
        self._on_change = on_change
        self.group = PeerGroup(bus, "dispatcher", status=self._status, on_heartbeat=self._update_share)

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
        return STARVING if self._is_starving() else ""

    def _update_share(self) -> None:
        slot_share = SlotShare()
        if self._is_starving() or STARVING in self.group.peers.values():
            rank = sum(name < self.name for name in self.group.peers)
            slot_share = SlotShare(self.count, rank + int(time.time() / HEARTBEAT_S))
        if slot_share != self.slot_share:
            self.slot_share = slot_share
            self._on_change(slot_share)
