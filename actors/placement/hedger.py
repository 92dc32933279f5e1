"""Sends a generation whose first event is late to a second node as well; the node that begins first answers.

The reader of the stream receives both and decides which node was first. It is asked about a late generation.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from actors.placement import migration
from actors.placement.generation_log import record_hedged
from actors.placement.job import Job
from actors.placement.metrics import hedges
from actors.placement.node_client import NodeClient
from actors.placement.placer import HedgeLost, Placer
from orchestration.errors import Cancelled, OrchestraError, from_body
from orchestration.messages import Generation, GenerationEnd, NodeInfo, Priority
from orchestration.placement import FirstTokens, HedgeSettings
from orchestration.placement.retry_budget import RetryBudget

log = logging.getLogger(__name__)

DECIDED_S = 2.0
"""How long to wait for the reader's decision after the stream has ended, in seconds. The decision normally
comes within a millisecond of the first event. When it is lost, because NATS restarts for example, the node
that ended the stream counts as the winner."""


@dataclass(slots=True, eq=False)
class HedgedCall:
    """A generation on its first node and, when that is late, on a second one.

    The reader decides which node began first; `writer` is the name under which the second node writes.
    """

    job: Job
    first_node: NodeInfo
    tried_nodes: set[str]
    started_at: float
    probe: bool = False
    """Whether the generation tests a node that has failed; then the second node needs no budget."""
    reserved: str = ""
    """The node whose slot is taken while the reader is asked whether a second node is needed."""
    second_node: str = ""
    """The second node, once the generation was sent to it."""
    writer: str = ""
    hedge: asyncio.Task[OrchestraError | None] | None = None
    won: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """The result is whether the second node began first."""

    @property
    def second_won(self) -> bool | None:
        """Whether the second node began first; None until the reader has decided."""
        return self.won.result() if self.won.done() else None


class Hedger:
    """Hedges the interactive generations of one process."""

    def __init__(self, placer: Placer, node_client: NodeClient, settings: HedgeSettings) -> None:
        self.placer = placer
        self.node_client = node_client
        self.settings = settings
        self.first_tokens = FirstTokens(settings)
        self.budget = RetryBudget(share=settings.share, reserve=settings.reserve)

    def update_settings(self, settings: HedgeSettings) -> None:
        self.settings = self.first_tokens.settings = settings
        self.budget.resize(share=settings.share, reserve=settings.reserve)

    async def generate(self, node: NodeInfo, job: Job, tried_nodes: set[str]) -> OrchestraError | None:
        """Run `job` on `node` and, when that is late, on a second node too. Adds both to `tried_nodes`.

        The caller has taken the slot of `node`. Returns None when a node ended the stream itself, with
        whatever end, else the error.
        """
        tried_nodes.add(node.id)
        probe = self.placer.is_probe(job, node.id)
        late_after_s = self._late_after_s(job, probe)
        if late_after_s is None:
            return _error_of(await self._call(node, job))
        call = HedgedCall(job, node, tried_nodes, time.monotonic(), probe)
        timer = asyncio.get_running_loop().call_later(late_after_s, self._late, call)
        try:
            error = _error_of(await self._call(node, job))
            return error if call.hedge is None else await self._outcome(call, call.hedge, error)
        finally:
            timer.cancel()
            if call.hedge is not None:
                await self._finish(call, call.hedge)

    def _late_after_s(self, job: Job, probe: bool) -> float | None:
        """Seconds after which `job` is late; None when it is never sent twice, because it is not interactive
        or was started before.

        A generation that tests a failed node can be late without a record of the model's times.
        """
        if job.priority is not Priority.INTERACTIVE or not self.settings.share:
            return None
        if job.continued is not None or job.attempt > 1:
            return None
        self.budget.deposit()
        late_after_s = self.first_tokens.late_after_s(job.model, time.monotonic())
        return self.settings.probe_late_s if probe and late_after_s is None else late_after_s

    async def _call(
        self, node: NodeInfo, job: Job, hedge: Generation | None = None
    ) -> GenerationEnd | OrchestraError:
        started_at = time.monotonic()
        outcome = await self.node_client.generate(node, job, hedge)
        if isinstance(outcome, GenerationEnd) and job.priority is Priority.INTERACTIVE:
            now = time.monotonic()
            self.first_tokens.record(job.model, now - started_at - outcome.writing_s, now)
        return outcome

    def _late(self, call: HedgedCall) -> None:
        """Send the generation to a second node if one has a free slot and the budget allows it."""
        if call.job.cancelled or call.job.expired or not (call.probe or self.budget.withdraw()):
            return
        second_node = self.placer.choose(call.job, without=frozenset(call.tried_nodes), sure=True)
        if second_node is None:
            self._refund(call)
            return
        call.reserved = second_node.id
        call.hedge = asyncio.get_running_loop().create_task(self._hedge(call, second_node))

    async def _hedge(self, call: HedgedCall, second_node: NodeInfo) -> OrchestraError | None:
        """Run the generation on `second_node`, whose slot is taken, unless its reader has received something
        by now."""
        job = call.job
        second: Generation | None = None
        try:
            second = await migration.prepare_hedge(job, lambda winner: self._on_decision(call, winner))
        except OrchestraError as error:
            log.info("generation %s is late, but its reader does not answer: %s", job.id, error)
        if second is None or second.continuation is None or job.cancelled:
            self._release(call)
            return None
        call.writer = second.continuation.writer
        call.reserved, call.second_node = "", second_node.id
        call.tried_nodes.add(second_node.id)
        log.info(
            "generation %s is late on node %s and also goes to node %s",
            job.id,
            call.first_node.id,
            second_node.id,
        )
        outcome = await self._call(second_node, job, second)
        if isinstance(outcome, GenerationEnd) and outcome.error is not None and outcome.events == 0:
            return from_body(outcome.error)  # the reader ignores a refusal by the second node
        return _error_of(outcome)

    def _release(self, call: HedgedCall) -> None:
        """Release the reserved slot and refund the budget, if the second node was not used."""
        if call.reserved:
            self._refund(call)
            self.placer.give_back(call.job, call.reserved)
            self.placer.place_again(call.job.model)
            call.reserved = ""

    def _refund(self, call: HedgedCall) -> None:
        if not call.probe:
            self.budget.give_back()

    def _on_decision(self, call: HedgedCall, winner: str) -> None:
        """One of the nodes has begun: stop the other one."""
        if call.won.done() or not call.second_node:
            return
        call.won.set_result(winner == call.writer)
        if call.won.result():
            lost = HedgeLost(f"node {call.second_node} got the generation later and began first")
            self.node_client.abandon(call.first_node.id, call.job, "", lost)
        else:
            self._abandon_second(call)

    def _abandon_second(self, call: HedgedCall) -> None:
        self.node_client.abandon(call.second_node, call.job, call.writer, Cancelled("the first node began"))

    async def _outcome(
        self, call: HedgedCall, hedge: asyncio.Task[OrchestraError | None], error: OrchestraError | None
    ) -> OrchestraError | None:
        """The result of both calls, after the call of the first node has ended with `error`."""
        if isinstance(error, HedgeLost):
            now = time.monotonic()
            self.first_tokens.record(call.job.model, now - call.started_at, now)
            self.placer.place_again(call.job.model)
            return await hedge
        if not call.second_node:
            return error
        if error is None:  # the reader takes only one of the two ends
            either: set[asyncio.Future[Any]] = {call.won, hedge}
            await asyncio.wait(either, timeout=DECIDED_S, return_when=asyncio.FIRST_COMPLETED)
            return await hedge if call.second_won else None
        outcome = await hedge
        return error if call.second_won is False else outcome

    async def _finish(self, call: HedgedCall, hedge: asyncio.Task[OrchestraError | None]) -> None:
        call.job.reader.end_race()
        if call.second_node:
            lost = not hedge.done() or isinstance(hedge.result(), Cancelled | None)
            outcome = "won" if call.second_won else "lost" if lost else "failed"
            hedges(call.job.model, outcome).inc()
            record_hedged(call.job, (call.first_node.id, call.second_node), outcome)
        try:
            if not hedge.done():
                if call.second_node:
                    self._abandon_second(call)
                hedge.cancel()
                await asyncio.wait({hedge})
        finally:
            self._release(call)
            call.won.cancel()


def _error_of(outcome: GenerationEnd | OrchestraError) -> OrchestraError | None:
    return outcome if isinstance(outcome, OrchestraError) else None
