"""A node's entry in the registry: leased, renewed, refreshed when the load changes, deleted on leaving."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from actors.registry import BUCKET, HEARTBEAT_S
from actors.runtime.bus import Bus
from actors.runtime.kv import Bucket, Conflict, Lease
from orchestration.errors import OrchestraError
from orchestration.messages import NodeInfo

log = logging.getLogger(__name__)

REFRESH_S = 0.25
"""A change of load is told at most this often."""
SOON_S = 0.05
"""And so late: not at the moment when a generation that has just begun waits for its first token."""


class Presence:
    """Advertises what `describe` says until `leave`. `on_conflict` is called when another node has
    taken the id, after which this one no longer holds it."""

    def __init__(
        self, bus: Bus, node_id: str, describe: Callable[[], NodeInfo], on_conflict: Callable[[], None]
    ) -> None:
        self.node_id = node_id
        self._describe = describe
        self._on_conflict = on_conflict
        self._lease = Lease(Bucket(bus, BUCKET), node_id)
        self._changed = asyncio.Event()
        self._writing = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    async def join(self) -> None:
        """Raises `Conflict` naming the id when a live node has it."""
        self._changed.clear()  # all there is to tell is told now
        info = self._describe()
        try:
            await self._lease.hold(self._value())
        except Conflict as error:
            raise Conflict(
                f"a node {info.id!r} is already alive; choose another --id, or wait for its lease to end"
            ) from error
        self._task = asyncio.get_running_loop().create_task(self._renew())

    def changed(self) -> None:
        """The load changed: tell the others soon."""
        self._changed.set()

    async def tell(self) -> None:
        """Say now what `describe` says. Raises what the bus raises; harmless for a node that is not in."""
        if self._task is not None:
            async with self._writing:
                await self._lease.hold(self._value())

    async def leave(self) -> None:
        """Vanish from the registry at once; the lease ends by itself when NATS is away."""
        if self._task is None:
            return
        task, self._task = self._task, None
        async with self._writing:  # a renewal on its way would undo the release
            task.cancel()
            try:
                await self._lease.release()
            except OrchestraError as error:
                log.warning("%s could not leave the registry: %s", self._describe().id, error)

    def _value(self) -> bytes:
        info = self._describe().model_copy(update={"heartbeat_at": time.time()})
        return info.model_dump_json().encode()

    async def _renew(self) -> None:
        while True:
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._changed.wait()
                    await asyncio.sleep(SOON_S)
            except TimeoutError:
                pass
            self._changed.clear()
            try:
                async with self._writing:
                    await self._lease.hold(self._value())
            except Conflict:
                log.critical("another node has taken the id %s; this one stops", self._describe().id)
                self._on_conflict()
                return
            except OrchestraError as error:
                log.warning("the lease could not be renewed: %s", error)
            await asyncio.sleep(REFRESH_S - SOON_S)
