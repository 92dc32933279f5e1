"""Ends calls of nodes that give no first output, so that their generations move to other nodes."""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections.abc import Mapping

from actors.placement.job import Job
from actors.placement.node_client import NodeClient
from actors.placement.placer import Placer
from orchestration.errors import NoOutput
from orchestration.placement import Call

log = logging.getLogger(__name__)

MAX_QUERIES = 256
"""Maximum number of readers that are asked in one round whether they have received output."""


class HungNodes:
    """Checks the running calls of one process.

    It asks the readers of late generations. A generation stays on its node when no other node is left to try.
    """

    def __init__(self, placer: Placer, node_client: NodeClient, jobs: Mapping[str, Job]) -> None:
        self.placer = placer
        self.node_client = node_client
        self.jobs = jobs

    async def run(self) -> None:
        """Check regularly until cancelled, while calls are running."""
        pause_s = min(1.0, self.node_client.first_outputs.settings.min_s / 4)
        while True:
            await self.node_client.in_flight.busy.wait()
            await asyncio.sleep(pause_s)
            try:
                await self.check()
            except Exception:  # an error in one round must not end the checks
                log.exception("the check for hung nodes failed")

    async def check(self) -> None:
        """Run one round."""
        first_outputs = self.node_client.first_outputs
        overdue = first_outputs.overdue(self.placer.chooser.records, time.monotonic())
        overdue = list(itertools.islice(filter(self._could_move, overdue), MAX_QUERIES))
        if not overdue:
            return
        await asyncio.gather(*map(self._query_reader, overdue))
        for call in first_outputs.hung(overdue, time.monotonic()):
            job = self.jobs.get(call.id)
            if job is not None:
                error = NoOutput(f"node {call.node} gave no output within {call.limit_s:.3g} s")
                log.warning("generation %s moves to another node: %s", call.id, error.message)
                self.node_client.abandon(call.node, job, "", error)

    def _could_move(self, call: Call) -> bool:
        job = self.jobs.get(call.id)
        return job is not None and self.placer.has_alternative(call.needs, job.tried)

    async def _query_reader(self, call: Call) -> None:
        age_s = time.monotonic() - call.sent_at
        job = self.jobs.get(call.id)
        position = None if job is None else await job.reader.peek(min(age_s, call.limit_s))
        if position is None or position.alive:  # it may fall silent later
            call.alive_at = time.monotonic()
        call.has_output = position is not None and (position.events > 0 or not position.open)
