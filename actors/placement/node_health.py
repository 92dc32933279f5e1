"""Pings the nodes that have work, because a lease takes 8 s to expire."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from secrets import token_hex

from actors.bus.bus import Bus, Message, Subscription
from actors.bus.subjects import NodeAddress
from actors.placement.in_flight import InFlight
from orchestration.errors import BusUnavailable

log = logging.getLogger(__name__)


@dataclass(slots=True)
class PingState:
    reply: str
    unanswered: int = 0
    absent: int = 0
    """Consecutive replies of NATS that the node has no subscription."""
    connection: bytes = b""
    """The node's connection to NATS, as the node named it last."""


class NodeHealthMonitor:
    """Pings every busy node each `interval_s`.

    A node is `silent` after `misses` pings in a row without an answer (frozen, or cut off), or after two
    pings without a subscriber (killed). `on_silent` is called once. A silent node is pinged further; with its
    first answer it counts as alive and `on_back` is called.

    `on_reconnect` is called for a node that answers over a new connection: what it sent while it had none,
    such as the end of a generation, is lost.

    Pings are counted instead of seconds, so that at most one counts as missed after this process was stopped
    for a while. Pings do not count either while NATS delivers nothing: each round also sends a message to
    this process itself.
    """

    def __init__(self, bus: Bus, *, interval_s: float, misses: int) -> None:
        self.bus = bus
        self.interval_s = interval_s
        self.misses = misses
        self.silent: set[str] = set()
        self.on_silent: list[Callable[[str], None]] = []
        self.on_back: list[Callable[[str], None]] = []
        self.on_reconnect: list[Callable[[str], None]] = []
        self.rounds = 0
        """The number of rounds of pings so far."""
        self._ping_states: dict[str, PingState] = {}
        self._echo = f"{bus.inbox}.echo.{token_hex(4)}"
        self._echo_arrived = True
        self._subscription: Subscription | None = None

    async def start(self) -> None:
        """Subscribe; `watch` follows."""
        self._subscription = await self.bus.subscribe(self._echo, self._echo_received)
        self.bus.on_disconnect.append(self._on_disconnect)

    async def watch(self, in_flight: InFlight) -> None:
        """Ping until cancelled; without nodes to ping, wait for one."""
        while True:
            await asyncio.sleep(self.interval_s)
            try:
                self._ping(set(in_flight.counts))
            except Exception:  # an error in one round must not end the pings
                log.exception("pinging the nodes failed")
            if not in_flight.counts and not self.silent:
                await in_flight.busy.wait()

    async def stop(self) -> None:
        """Unsubscribe; the caller has ended `watch`."""
        if self._on_disconnect in self.bus.on_disconnect:
            self.bus.on_disconnect.remove(self._on_disconnect)
        for node in list(self._ping_states):
            self._drop(node)
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await subscription.unsubscribe()

    def remove(self, node: str) -> None:
        """Forget a node that has left the registry."""
        self.silent.discard(node)
        self._drop(node)

    def _on_disconnect(self) -> None:
        """This process has lost its own connection: what it waited for has failed already."""
        self._echo_arrived = True
        for state in self._ping_states.values():
            state.connection = b""

    def _echo_received(self, message: Message) -> None:
        self._echo_arrived = True

    @property
    def connections(self) -> dict[str, bytes]:
        """Each watched node's connection to NATS, as the node named it last; empty before its first
        answer."""
        return {node: state.connection for node, state in self._ping_states.items()}

    def _ping(self, busy_nodes: set[str]) -> None:
        self.rounds += 1
        if not busy_nodes and not self.silent:
            for node in list(self._ping_states):
                self._drop(node)
            self._echo_arrived = True
            return
        counts, self._echo_arrived = self._echo_arrived, False
        try:
            self.bus.post(self._echo)
        except BusUnavailable:
            self._echo_arrived = True
        for node in self._ping_states.keys() - busy_nodes - self.silent:
            self._drop(node)
        for node in busy_nodes | self.silent:
            state = self._ping_states.get(node)
            if state is None:
                state = self._ping_states[node] = PingState(
                    self.bus.expect(partial(self._ping_answered, node))
                )
            elif node not in self.silent and state.unanswered >= self.misses:
                self._mark_silent(node, f"has not answered {state.unanswered} pings")
            try:
                self.bus.post(NodeAddress(node).ping, reply=state.reply)
                state.unanswered += counts
            except BusUnavailable:
                state.unanswered = state.absent = 0

    def _ping_answered(self, node: str, message: Message) -> None:
        state = self._ping_states[node]
        state.unanswered = 0
        if message.status == "503":
            state.absent += 1
            if state.absent >= 2 and node not in self.silent:
                self._mark_silent(node, "has no connection to NATS")
            return
        state.absent = 0
        before, state.connection = state.connection, message.data
        if before and before != message.data:
            log.warning("node %s lost its connection to NATS and is back", node)
            for call in list(self.on_reconnect):
                call(node)
        if node in self.silent:
            self.silent.discard(node)
            log.info("node %s answers again", node)
            for call in list(self.on_back):
                call(node)

    def _mark_silent(self, node: str, reason: str) -> None:
        log.warning("node %s %s: its generations move to other nodes", node, reason)
        self.silent.add(node)
        for call in list(self.on_silent):
            call(node)

    def _drop(self, node: str) -> None:
        state = self._ping_states.pop(node, None)
        if state is not None:
            self.bus.forget(state.reply)
