"""The other processes of the same kind, found by their heartbeats."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from secrets import token_hex

from pydantic import ValidationError

from actors.bus.bus import Bus, Message, Subscription
from actors.cluster.failure_detector import FailureDetector
from orchestration.errors import BusUnavailable, DeadlineExceeded, NoResponders
from orchestration.messages import Wire

log = logging.getLogger(__name__)

HEARTBEAT_S = 1.0
TIMEOUT_S = 5.0
"""A peer without a heartbeat for this long has failed."""
JOIN_TIMEOUT_S = 2.0
"""How long a new peer waits until one of the others knows it."""
MAX_PEERS = 10_000


class PeerHeartbeat(Wire):
    """`status` is the group's own, '' by default. `leaving` is set in the last one."""

    name: str
    status: str = ""
    leaving: bool = False


async def _ignore_change() -> None: ...


class PeerGroup:
    """The group of one kind of process, such as `gateway`, on the subject `peers.<kind>`.

    `status` returns this process's status for its next heartbeat. `on_change` is awaited when a peer joins,
    leaves or fails; a peer that joins waits for it. `on_heartbeat` is called after each heartbeat, also
    after this process's own.
    """

    def __init__(
        self,
        bus: Bus,
        kind: str,
        *,
        status: Callable[[], str] = str,
        on_change: Callable[[], Awaitable[None]] = _ignore_change,
        on_heartbeat: Callable[[], None] = lambda: None,
        heartbeat_s: float = HEARTBEAT_S,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.heartbeat_s = heartbeat_s
        self.bus = bus
        self.kind = kind
        self.subject = f"peers.{kind}"
        self.name = token_hex(6)
        self.peers: dict[str, str] = {}
        """The status of each other process, by name."""
        self._status = status
        self._on_change = on_change
        self._on_heartbeat = on_heartbeat
        self._detector = FailureDetector(bus, timeout_s)
        self._started_at = time.monotonic()
        self._subscriptions: list[Subscription] = []
        self._task: asyncio.Task[None] | None = None

    @property
    def settled(self) -> bool:
        """Whether this process has listened for long enough to know all peers."""
        return time.monotonic() - self._started_at > self._detector.timeout_s

    async def start(self) -> None:
        """Join the group. The others know this process when it returns; without others it returns at once."""
        self._subscriptions.append(await self.bus.subscribe(self.subject, self._received))
        try:
            await self.bus.request(f"{self.subject}.join", self._heartbeat(), timeout=JOIN_TIMEOUT_S)
        except NoResponders:
            pass
        except DeadlineExceeded:
            log.warning("no other %s answered within %g s", self.kind, JOIN_TIMEOUT_S)
        self._subscriptions.append(await self.bus.subscribe(f"{self.subject}.join", self._join_requested))
        self._detector.start()
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Leave the group."""
        if self._task is not None:
            self._task.cancel()
        self._detector.stop()
        self._send(leaving=True)
        for subscription in self._subscriptions:
            await subscription.unsubscribe()

    async def _join_requested(self, message: Message) -> None:
        await self._received(message)
        self._send()
        self.bus.answer(message, self._heartbeat())

    async def _received(self, message: Message) -> None:
        try:
            heartbeat = PeerHeartbeat.model_validate_json(message.data)
        except ValidationError as error:
            log.debug("a heartbeat on %s cannot be read: %s", message.subject, error)
            return
        name = heartbeat.name
        is_new = name not in self.peers
        if name == self.name or (is_new and len(self.peers) >= MAX_PEERS):
            return
        if heartbeat.leaving:
            await self._remove([name])
            return
        self._detector.heartbeat(name)
        self.peers[name] = heartbeat.status
        if is_new:
            self._send()
            await self._on_change()
        self._on_heartbeat()

    async def _remove(self, names: list[str]) -> None:
        known = [name for name in names if name in self.peers]
        for name in known:
            del self.peers[name]
            self._detector.forget(name)
        if known:
            await self._on_change()

    def _heartbeat(self, *, leaving: bool = False) -> bytes:
        heartbeat = PeerHeartbeat(name=self.name, status=self._status(), leaving=leaving)
        return heartbeat.model_dump_json(exclude_defaults=True).encode()

    def _send(self, *, leaving: bool = False) -> None:
        try:
            self.bus.post(self.subject, self._heartbeat(leaving=leaving))
        except BusUnavailable as error:
            log.debug("cannot send a heartbeat on %s: %s", self.subject, error)

    async def _run(self) -> None:
        while True:
            self._send()
            self._on_heartbeat()
            await asyncio.sleep(self.heartbeat_s)
            failed = list(self._detector.failed())
            for name in failed:
                log.warning("no heartbeat of %s %s for %g s", self.kind, name, self._detector.timeout_s)
            await self._remove(failed)
