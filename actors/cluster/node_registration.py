"""Registers a node: its entry has a lease that is renewed, and is rewritten when the load changes.

Every gateway, agent and dispatcher reads every write, so what needs no haste waits for the next renewal. A
renewal without a change repeats the same bytes, which readers do not decode.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress

from actors.bus.bus import Bus
from actors.bus.key_value import Bucket, Conflict, Entry, Lease
from actors.bus.subjects import NodeAddress
from actors.cluster.registry import BUCKET, HEARTBEAT_S, LEASE_S, MODELS
from orchestration.errors import DeadlineExceeded, NoResponders, OrchestraError
from orchestration.messages import NodeInfo

log = logging.getLogger(__name__)

REFRESH_S = 0.25
"""Minimum time between two writes of the entry, in seconds."""
SOON_S = 0.05
"""Delay before a change is written, in seconds, so that the write does not compete with the first token of a
generation that has just begun."""
PING_S = 1.0
"""Time for a live node with the same id to answer, in seconds."""
SLOW_STORE = 10
"""Times that a write took, after which the next one is due: a busy store gets fewer reports."""
REMEMBER_S = 6 * 3600.0
"""Time after which the models are stored again, in seconds: a quarter of the TTL of their bucket."""
DEAD_S = 2 * HEARTBEAT_S
"""A node without a connection that has not renewed its lease for this long, in seconds, was killed."""
_POLL_S = 0.1


class NodeRegistration:
    """Publishes the result of `describe` until `leave`. `on_conflict` is called when another node has taken
    the id; then this node no longer holds it."""

    def __init__(
        self, bus: Bus, node_id: str, describe: Callable[[], NodeInfo], on_conflict: Callable[[], None]
    ) -> None:
        self.node_id = node_id
        self._describe = describe
        self._on_conflict = on_conflict
        self._bus = bus
        self._bucket = Bucket(bus, BUCKET)
        self._lease = Lease(self._bucket, node_id)
        self._load_changed = asyncio.Event()
        self._written: object = None
        """The urgent part of the last entry."""
        self._remembered: frozenset[str] = frozenset()
        self._remember_at = 0.0
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def claim(self) -> None:
        """Make sure that no other node has the id. Call it before anything is served under it.

        The entry of a killed node is deleted, so that a supervisor can restart the node at once. For a node
        that is connected and does not answer, it waits until the lease expires. Raises `Conflict` with the id
        when a live node has it.
        """
        entry = await self._bucket.latest(self.node_id)
        if entry.value is None or entry.holder == self._lease.holder:
            return
        try:
            await self._bus.request(NodeAddress(self.node_id).ping, timeout=PING_S)
        except NoResponders:
            log.warning(
                "node %s has an entry but no connection; replacing it if its lease is not renewed",
                self.node_id,
            )
            if await self._stays_unchanged(entry, DEAD_S):
                await self._delete_entry(entry)
        except DeadlineExceeded:
            limit = LEASE_S + HEARTBEAT_S
            log.warning(
                "another node %s does not answer; waiting up to %.0f s for its lease to expire",
                self.node_id,
                limit,
            )
            if await self._stays_unchanged(entry, limit):
                raise self._conflict() from None
        else:
            raise self._conflict()

    async def _stays_unchanged(self, entry: Entry, seconds: float) -> bool:
        """Whether `entry` is unchanged after `seconds`; False as soon as it is gone. Raises `Conflict` as
        soon as it is renewed."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            present = await self._bucket.latest(self.node_id)
            if present.value is None:
                return False
            if present.revision != entry.revision:
                raise self._conflict()
            await asyncio.sleep(_POLL_S)
        return True

    async def _delete_entry(self, entry: Entry) -> None:
        try:
            await self._bucket.delete_at(self.node_id, entry.revision)
        except Conflict as error:
            raise self._conflict() from error

    def _conflict(self) -> Conflict:
        return Conflict(
            f"a node {self.node_id!r} is already alive; choose another --id, or wait until its lease expires"
        )

    async def join(self) -> None:
        """Publish the entry and keep renewing it. Raises `Conflict` with the id when a live node has it."""
        self._load_changed.clear()  # the entry written now has all changes
        try:
            await self._lease.hold(self._value())
        except Conflict as error:
            raise self._conflict() from error
        await self._remember_models()
        self._task = asyncio.get_running_loop().create_task(self._renew())

    async def _remember_models(self) -> None:
        """Let processes that start later know the models, also while no node serves them."""
        models = frozenset(card.name for card in self._describe().models)
        if models == self._remembered and time.monotonic() < self._remember_at:
            return
        self._remembered, self._remember_at = models, time.monotonic() + REMEMBER_S
        bucket = Bucket(self._bus, MODELS)
        try:
            for model in models:
                await self._bus.publish(bucket.subject(model))
        except OrchestraError as error:
            self._remember_at = 0.0
            log.warning("cannot store which models node %s serves: %s", self.node_id, error)

    def notify_change(self) -> None:
        """The load has changed: write the entry soon."""
        self._load_changed.set()

    async def refresh(self) -> None:
        """Write the entry now. Raises the errors of the bus; does nothing before `join` and after `leave`."""
        if self._task is not None:
            async with self._writing:
                await self._lease.hold(self._value())

    async def leave(self) -> None:
        """Delete the entry. When NATS is away, the lease expires by itself."""
        if self._task is None:
            return
        task, self._task = self._task, None
        async with self._writing:  # a concurrent renewal would undo the release
            task.cancel()
            try:
                await self._lease.release()
            except OrchestraError as error:
                log.warning("cannot delete the entry of node %s: %s", self._describe().id, error)

    def _value(self) -> bytes:
        info = self._describe()
        self._written = _urgent(info)
        return info.model_dump_json().encode()

    async def _renew(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._urgent_change()
            self._load_changed.clear()
            began = time.monotonic()
            try:
                async with self._writing:
                    await self._lease.hold(self._value())
                await self._remember_models()
            except Conflict:
                log.critical("another node has taken the id %s; this node stops", self._describe().id)
                self._on_conflict()
                return
            except OrchestraError as error:
                log.warning("cannot renew the lease: %s", error)
            slow_s = SLOW_STORE * (time.monotonic() - began)
            await asyncio.sleep(min(max(REFRESH_S - SOON_S, slow_s), HEARTBEAT_S / 2))

    async def _urgent_change(self) -> None:
        """Wait until something has changed that others should know before the next renewal. What has begun
        and ended within `SOON_S` is no change."""
        while True:
            await self._load_changed.wait()
            await asyncio.sleep(SOON_S)
            self._load_changed.clear()
            if _urgent(self._describe()) != self._written:
                return


def _urgent(info: NodeInfo) -> object:
    """What a change of must be told at once. Of rates that is the first measurements, and large changes."""
    rates = {
        model: (rate.samples.bit_length(), round(rate.error_rate, 1), round(rate.slowdown))
        for model, rate in info.rates.items()
    }
    return info.model_copy(update={"rates": rates, "memory": info.memory.claims})
