"""Whether the nodes at work are alive: asked several times a lease, because a lease takes 8 s to end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from secrets import token_hex

from actors.bus.bus import Bus, Message
from actors.bus.subjects import NodeAddress
from orchestration.errors import BusUnavailable

log = logging.getLogger(__name__)


@dataclass(slots=True)
class PingState:
    reply: str
    unanswered: int = 0
    absent: int = 0
    """Times in a row that NATS said nobody listens there."""
    connection: bytes = b""
    """Of the node to NATS, as it named it last."""


class NodeHealthMonitor:
    """Pings every watched node each `interval_s`. A node is `silent` after `misses` pings in a row without
    an answer (frozen, or cut off), or two that nobody listened to (killed: its connection is gone);
    `on_silent` hears of it once. It is pinged on, and counts as alive again with its first answer.

    `on_cut` hears of a node that answers over another connection than before: what it said while it had none,
    such as that it is done, is lost.

    Pings are counted, not seconds: where this process itself was stopped for a while, one ping at most
    went unanswered. Nor do they count while NATS passes nothing on: with each round goes an echo to oneself.
    """

    def __init__(self, bus: Bus, *, interval_s: float, misses: int) -> None:
        self.bus = bus
        self.interval_s = interval_s
        self.misses = misses
        self.silent: set[str] = set()
        self.on_silent: list[Callable[[str], None]] = []
        self.on_back: list[Callable[[str], None]] = []
        self.on_cut: list[Callable[[str], None]] = []
        self.rounds = 0
        """Rounds of pings so far."""
        self._beats: dict[str, PingState] = {}
        self._echo = f"{bus.inbox}.pulse.{token_hex(4)}"
        self._echoed = True

    async def watch(self, at_work: Callable[[], Iterable[str]]) -> None:
        """Until it is cancelled."""
        self.bus.on_disconnect.append(self._cut_off)
        echo = await self.bus.subscribe(self._echo, self._heard_echo)
        try:
            while True:
                await asyncio.sleep(self.interval_s)
                self._ping(set(at_work()))
        finally:
            await echo.unsubscribe()
            if self._cut_off in self.bus.on_disconnect:
                self.bus.on_disconnect.remove(self._cut_off)
            for node in list(self._beats):
                self._drop(node)

    def gone(self, node: str) -> None:
        """It is out of the registry."""
        self.silent.discard(node)
        self._drop(node)

    def _cut_off(self) -> None:
        """This process itself has no connection: what it waited for has failed already."""
        self._echoed = True
        for beat in self._beats.values():
            beat.connection = b""

    def _heard_echo(self, message: Message) -> None:
        self._echoed = True

    @property
    def connections(self) -> dict[str, bytes]:
        """The connection to NATS of each watched node, as it named it last; empty before its first answer."""
        return {node: beat.connection for node, beat in self._beats.items()}

    def _ping(self, at_work: set[str]) -> None:
        self.rounds += 1
        counts, self._echoed = self._echoed, False
        try:
            self.bus.post(self._echo)
        except BusUnavailable:
            self._echoed = True
        for node in self._beats.keys() - at_work - self.silent:
            self._drop(node)
        for node in at_work | self.silent:
            beat = self._beats.get(node)
            if beat is None:
                beat = self._beats[node] = PingState(self.bus.expect(partial(self._answered, node)))
            elif node not in self.silent and beat.unanswered >= self.misses:
                self._fell_silent(node, f"has not answered {beat.unanswered} pings")
            try:
                self.bus.post(NodeAddress(node).ping, reply=beat.reply)
                beat.unanswered += counts
            except BusUnavailable:
                beat.unanswered = beat.absent = 0

    def _answered(self, node: str, message: Message) -> None:
        beat = self._beats[node]
        beat.unanswered = 0
        if message.status == "503":
            beat.absent += 1
            if beat.absent >= 2 and node not in self.silent:
                self._fell_silent(node, "is gone from NATS")
            return
        beat.absent = 0
        before, beat.connection = beat.connection, message.data
        if before and before != message.data:
            log.warning("node %s has lost its connection to NATS, and is back", node)
            for call in list(self.on_cut):
                call(node)
        if node in self.silent:
            self.silent.discard(node)
            log.info("node %s answers again", node)
            for call in list(self.on_back):
                call(node)

    def _fell_silent(self, node: str, why: str) -> None:
        log.warning("node %s %s: its generations go on elsewhere", node, why)
        self.silent.add(node)
        for call in list(self.on_silent):
            call(node)

    def _drop(self, node: str) -> None:
        beat = self._beats.pop(node, None)
        if beat is not None:
            self.bus.forget(beat.reply)
