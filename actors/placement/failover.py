"""Runs one generation: on its first node, and on the next one when a node fails or dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from actors.bus.bus import Bus
from actors.placement import migration
from actors.placement.generation_log import record_failed, record_moved
from actors.placement.hedger import Hedger
from actors.placement.job import Job
from actors.placement.metrics import moved
from actors.placement.placer import Placer
from actors.placement.settings import PlacementSettings
from orchestration.errors import (
    SERVER_LIMITS,
    BusUnavailable,
    NodeBusy,
    NodeLost,
    NoOutput,
    NoResponders,
    OrchestraError,
    RateLimited,
    ServerBusy,
    ShuttingDown,
)
from orchestration.messages import NodeInfo
from orchestration.placement.retry_budget import RetryBudget

_TRANSIENT = (NodeBusy, NodeLost, NoResponders, BusUnavailable, ShuttingDown, *SERVER_LIMITS)
"""Errors that are not caused by the generation: it waits for another node until its deadline."""


class Failover:
    """Tries one node after the other for a generation.

    `live_nodes` returns the nodes that serve a model and answer pings. While `leaving` is set, a generation
    moves only to a node that has a free slot now.
    """

    def __init__(
        self,
        bus: Bus,
        placer: Placer,
        hedger: Hedger,
        live_nodes: Callable[[str], set[str]],
        settings: PlacementSettings,
    ) -> None:
        self.bus = bus
        self.placer = placer
        self.hedger = hedger
        self.live_nodes = live_nodes
        self.settings = settings
        self.budget = RetryBudget(share=settings.retry_share, reserve=settings.retry_reserve)
        self.leaving = False
        self.max_busy: int | None = None
        """Maximum number of nodes that a generation is sent to while they refuse it as busy; None: all."""

    def update_settings(self, settings: PlacementSettings) -> None:
        self.settings = settings
        self.budget.resize(share=settings.retry_share, reserve=settings.retry_reserve)

    async def run(self, job: Job, first: NodeInfo) -> tuple[OrchestraError | None, bool]:
        """Return the error of the last node, or None when a node ended the stream; and whether the generation
        may wait for another node. The caller has taken the slot of `first`."""
        node: NodeInfo | None = first
        error: OrchestraError | None = None
        tried = job.tried = set()
        waits = False
        while node is not None:
            error = await self.hedger.generate(node, job, tried)
            waits = error is not None and await self._can_move(job, error)
            last = node.id
            node = await self._next_node(job, error, tried) if waits and error is not None else None
            if error is not None and not job.superseded:
                goes_on = node is not None or (waits and isinstance(error, _TRANSIENT))
                record = record_moved if goes_on else record_failed
                record(job, last, error)
        return error, waits and isinstance(error, _TRANSIENT)

    async def _can_move(self, job: Job, error: OrchestraError) -> bool:
        """Whether another node may take over after `error`. Sets the job's body to where that node has to
        continue.

        A node that is busy or absent never had the generation. A generation that loses its node moves without
        a budget, because the node's load is gone too, but at most `attempts` times, because it may be what
        kills the nodes.
        """
        if not error.retryable or job.cancelled or job.expired:
            return False
        if isinstance(error, NodeBusy | NoResponders):
            return True
        if not isinstance(error, BusUnavailable | RateLimited | ServerBusy):
            job.moves += 1
            if job.moves >= self.settings.attempts:
                job.superseded = await job.reader.is_superseded(job.attempt)
                return False
            if not isinstance(error, NodeLost | NoOutput | ShuttingDown) and not self.budget.withdraw():
                return False
        if not await migration.prepare_move(self.bus, job, self.settings.busy_pause_s):
            return False
        moved(job.model, error.code).inc()
        if job.moves > 1:  # the first move is immediate; repeated failures need time
            await asyncio.sleep(self.settings.busy_pause_s * 2**job.moves)
        return True

    async def _next_node(self, job: Job, error: OrchestraError, tried: set[str]) -> NodeInfo | None:
        """Wait for the next node with a free slot and take the slot; None when no node should be waited
        for."""
        if isinstance(error, NodeBusy) and self.max_busy is not None and len(tried) >= self.max_busy:
            return None
        while not (job.cancelled or job.expired or self.leaving):
            node = self.placer.choose(job, without=frozenset(tried))
            if node is not None:
                return node
            others = self.live_nodes(job.model) - tried
            if isinstance(error, _TRANSIENT) or not self.placer.can_run(job, others):
                return None
            await asyncio.sleep(self.settings.busy_pause_s)
        return None
