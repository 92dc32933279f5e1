"""Generations that are late with their first event go to a second node as well: who begins first answers.

Who reads the stream decides which of the two that is, for it hears both, and says so once. Until then
nobody tells the dispatcher whether a generation has begun: only for one that is late the reader is asked.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from actors.bus.bus import Bus
from actors.bus.message import Message
from actors.dispatcher import migration
from actors.dispatcher.job import Job
from actors.dispatcher.metrics import hedges
from actors.dispatcher.node_client import NodeClient
from actors.dispatcher.placer import HedgeLost, Placer
from orchestration.errors import Cancelled, OrchestraError, from_body
from orchestration.messages import GenerationEnd, NodeInfo, Priority
from orchestration.placement import FirstTokens, HedgeSettings
from orchestration.placement.retry_budget import RetryBudget

log = logging.getLogger(__name__)

DECIDED_S = 2.0
"""Who came first is known within a millisecond of the first event. When the word is lost, as when NATS
restarts, the node that ended the stream is taken for the winner."""


@dataclass(slots=True, eq=False)
class HedgedCall:
    """Of `job` between the node it was sent to and, once it is late, a second one. `decision_subject` is
    where its reader says who began first, and `writer` how the second one signs."""

    job: Job
    first_node: NodeInfo
    tried_nodes: set[str]
    started_at: float
    probe: bool = False
    """Whether it tries out the first node: then the second one costs no share of the budget."""
    reserved: str = ""
    """The node whose slot is taken while the reader is asked whether it is needed."""
    second_node: str = ""
    """The node, once the generation was sent there."""
    writer: str = ""
    decision_subject: str = ""
    hedge: asyncio.Task[OrchestraError | None] | None = None
    won: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Whether the second one began first, once that is known."""

    @property
    def second_won(self) -> bool | None:
        """None while nobody has begun."""
        return self.won.result() if self.won.done() else None


class Hedger:
    """Of one dispatcher."""

    def __init__(self, bus: Bus, placer: Placer, node_client: NodeClient, settings: HedgeSettings) -> None:
        self.bus = bus
        self.placer = placer
        self.node_client = node_client
        self.settings = settings
        self.first_tokens = FirstTokens(settings)
        self.budget = RetryBudget(share=settings.share, reserve=settings.reserve)

    async def generate(self, node: NodeInfo, job: Job, tried_nodes: set[str]) -> OrchestraError | None:
        """Run `job` on `node`, whose slot is taken, and where it is late on another as well; `tried_nodes`
        gets both. None when one of them ended the stream itself, whatever its end; the error otherwise."""
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
        """None for what is never sent twice: nobody waits for it, or it was begun by somebody before. A
        generation that tries out a node which has failed needs no record to be late."""
        if job.queue.priority is not Priority.INTERACTIVE or not self.settings.share:
            return None
        if job.body or job.delivery.attempt > 1:
            return None
        self.budget.deposit()
        late_after_s = self.first_tokens.late_after_s(job.queue.model, time.monotonic())
        return self.settings.probe_late_s if probe and late_after_s is None else late_after_s

    async def _call(self, node: NodeInfo, job: Job, body: bytes = b"") -> GenerationEnd | OrchestraError:
        started_at = time.monotonic()
        outcome = await self.node_client.generate(node, job, body)
        if isinstance(outcome, GenerationEnd) and job.queue.priority is Priority.INTERACTIVE:
            now = time.monotonic()
            self.first_tokens.record(job.queue.model, now - started_at - outcome.writing_s, now)
        return outcome

    def _late(self, call: HedgedCall) -> None:
        """Have a second node begin too, if one has room now and the budget allows it."""
        if call.job.cancelled or call.job.expired or not (call.probe or self.budget.withdraw()):
            return
        second_node = self.placer.choose(call.job, without=frozenset(call.tried_nodes), sure=True)
        if second_node is None:
            self._refund(call)
            return
        call.reserved = second_node.id
        call.hedge = asyncio.get_running_loop().create_task(self._hedge(call, second_node))

    async def _hedge(self, call: HedgedCall, second_node: NodeInfo) -> OrchestraError | None:
        """Run it on `second_node` too, whose slot is taken, unless its reader has something to read by
        now."""
        job = call.job
        call.decision_subject = self.bus.expect(lambda message: self._on_decision(call, message))
        try:
            call.writer, body = await migration.prepare_hedge(self.bus, job, call.decision_subject)
        except OrchestraError as error:
            log.info("generation %s is late, and its reader cannot be asked: %s", job.id, error)
            body = b""
        if not body or job.cancelled:
            self._release(call)
            return None
        call.reserved, call.second_node = "", second_node.id
        call.tried_nodes.add(second_node.id)
        log.info("generation %s is late on %s and goes to %s too", job.id, call.first_node.id, second_node.id)
        outcome = await self._call(second_node, job, body)
        if isinstance(outcome, GenerationEnd) and outcome.error is not None and outcome.events == 0:
            return from_body(outcome.error)  # its reader takes no refusal from a second one
        return _error_of(outcome)

    def _release(self, call: HedgedCall) -> None:
        """The slot and the share of the budget that were not needed, if so."""
        if call.reserved:
            self._refund(call)
            self.placer.give_back(call.job, call.reserved)
            self.placer.place_again(call.job.queue.model)
            call.reserved = ""

    def _refund(self, call: HedgedCall) -> None:
        if not call.probe:
            self.budget.give_back()

    def _on_decision(self, call: HedgedCall, message: Message) -> None:
        """One of them has begun: the other stops."""
        if call.won.done() or not call.second_node:
            return
        call.won.set_result(message.data.decode(errors="replace") == call.writer)
        if call.won.result():
            late = HedgeLost(f"node {call.second_node} was asked later and began first")
            self.node_client.abandon(call.first_node.id, call.job, "", late)
        else:
            self._abandon_second(call)

    def _abandon_second(self, call: HedgedCall) -> None:
        self.node_client.abandon(call.second_node, call.job, call.writer, Cancelled("the first node began"))

    async def _outcome(
        self, call: HedgedCall, hedge: asyncio.Task[OrchestraError | None], error: OrchestraError | None
    ) -> OrchestraError | None:
        """What came of both, since the call of the first node has ended with `error`."""
        if isinstance(error, HedgeLost):
            now = time.monotonic()
            self.first_tokens.record(call.job.queue.model, now - call.started_at, now)
            self.placer.place_again(call.job.queue.model)
            return await hedge
        if not call.second_node:
            return error
        if error is None:  # only one of two ends was read
            either: set[asyncio.Future[Any]] = {call.won, hedge}
            await asyncio.wait(either, timeout=DECIDED_S, return_when=asyncio.FIRST_COMPLETED)
            return await hedge if call.second_won else None
        outcome = await hedge
        return error if call.second_won is False else outcome

    async def _finish(self, call: HedgedCall, hedge: asyncio.Task[OrchestraError | None]) -> None:
        self.bus.forget(call.decision_subject)
        if call.second_node:
            dead_letter_job = not hedge.done() or isinstance(hedge.result(), Cancelled | None)
            outcome = "won" if call.second_won else "lost" if dead_letter_job else "failed"
            hedges(call.job.queue.model, outcome).inc()
        if not hedge.done():
            if call.second_node:
                self._abandon_second(call)
            hedge.cancel()
            await asyncio.wait({hedge})
        self._release(call)
        call.won.cancel()


def _error_of(outcome: GenerationEnd | OrchestraError) -> OrchestraError | None:
    return outcome if isinstance(outcome, OrchestraError) else None
