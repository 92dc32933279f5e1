"""Reads the queues, streams and consumers for the whole cluster, in the one process that holds a lease."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterator

from prometheus_client import Counter, Gauge

from actors.bus.bus import Bus
from actors.bus.depth_reader import read_depth
from actors.bus.key_value import Bucket, Conflict, Lease
from actors.bus.queue_depth import ClusterDepth
from actors.nats_monitor.depth_metrics import DepthMetrics
from actors.nats_monitor.settings import NatsMonitorSettings
from actors.telemetry.event_log import event_log
from actors.telemetry.telemetry import INTERNAL_ERRORS
from orchestration.errors import OrchestraError
from orchestration.log_events import LogLevel

log = logging.getLogger(__name__)

LEASES, LEASE = "leases", "nats_monitor"
RENEW_S = 2.0
"""How often the lease is renewed or asked for, in seconds: a quarter of the bucket's TTL."""
MAX_AGES = 16
"""Maximum number of models, per priority, whose oldest generation is read every time."""
READ_TIMEOUT_S = 4.0
"""Maximum time of a reading: with a renewal it stays within the bucket's TTL."""
STALE_READINGS = 3
"""Number of failed readings in a row after which the last good one is exported no longer."""

MONITOR_LEADER = Gauge(
    "orchestra_nats_monitor_leader", "1 in the one process that exports the depth of the queues, else 0"
)
READINGS_FAILED = Counter(
    "orchestra_nats_monitor_failed_readings", "Readings of queues and streams that failed"
)


class NatsMonitor:
    """The monitor of the process `name`; `metrics` has the depth while it leads."""

    def __init__(self, bus: Bus, name: str, settings: NatsMonitorSettings) -> None:
        self.bus = bus
        self.name = name
        self.settings = settings
        self.metrics = DepthMetrics()
        self.is_leader = False
        self._lease = Lease(Bucket(bus, LEASES), LEASE)
        self._loop: asyncio.Task[None] | None = None
        self._failures = 0
        """Readings that failed since one succeeded."""
        self._near: set[str] = set()
        """The streams and consumers that were near their limits at the last reading."""

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Release the lease, so that another process takes over at once."""
        if self._loop is None:
            return
        self._loop.cancel()
        await asyncio.wait([self._loop])
        if self.is_leader:
            try:
                await self._lease.release()
            except OrchestraError as error:
                log.debug("the lease of the NATS monitor expires: %s", error)
        self._set_leader(False)

    async def _run(self) -> None:
        read_at = 0.0
        while True:
            held = await self._hold()
            self._set_leader(held)
            renew_at = time.monotonic() + RENEW_S * random.uniform(0.8, 1)
            while held and read_at + self.settings.interval_s <= renew_at:
                await asyncio.sleep(max(0.0, read_at + self.settings.interval_s - time.monotonic()))
                read_at = time.monotonic()
                await self._read()
            await asyncio.sleep(max(0.0, renew_at - time.monotonic()))

    async def _hold(self) -> bool:
        try:
            await self._lease.hold(self.name.encode())
        except OrchestraError as error:
            if not isinstance(error, Conflict):
                log.debug("cannot take the lease of the NATS monitor: %s", error)
            return False
        return True

    def _set_leader(self, leader: bool) -> None:
        self.is_leader = leader
        MONITOR_LEADER.set(leader and self._failures < STALE_READINGS)
        if not leader:
            self.metrics.depth = None
            self._near.clear()

    async def _read(self) -> None:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                depth = await read_depth(self.bus, max_ages=MAX_AGES)
        except (OrchestraError, TimeoutError) as error:
            self._failed(str(error) or f"no answer within {READ_TIMEOUT_S:g} s")
            return
        except Exception as error:  # else the last reading is exported for ever
            INTERNAL_ERRORS.labels("nats_monitor").inc()
            log.exception("reading the queues failed")
            self._failed(type(error).__name__)
            return
        self._failures = 0
        self.metrics.depth = depth
        MONITOR_LEADER.set(1)
        self._record_limits(depth)

    def _failed(self, reason: str) -> None:
        """Count a reading that failed, and export an old one no longer: its ages would go on rising."""
        READINGS_FAILED.inc()
        self._failures += 1
        log.debug("cannot read the depth of the queues: %s", reason)
        if self._failures == STALE_READINGS:
            log.warning("the depth of the queues is not exported until it can be read: %s", reason)
            self.metrics.depth = None
            MONITOR_LEADER.set(0)

    def _record_limits(self, depth: ClusterDepth) -> None:
        """Record each stream that refuses messages when it is full, and each consumer, that has come near its
        limit since the last reading."""
        near = {name: share for name, share in _shares(depth) if share >= self.settings.near_limit}
        for name in near.keys() - self._near:
            share = round(near[name], 3)
            event_log.record(
                "nats.near_limit",
                level=LogLevel.WARNING,
                message=f"{name} has used {share:.0%} of its limit",
                data={"name": name, "share": share},
            )
        self._near = set(near)


def _shares(depth: ClusterDepth) -> Iterator[tuple[str, float]]:
    yield from ((f"stream {each.name}", each.fullness) for each in depth.streams if each.refuses)
    yield from ((f"consumer {each.name}", each.fullness) for each in depth.consumers)
