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
from actors.dispatcher import migration as handover
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
    """Of `job` between the node it was sent to and, once it is late, a second one. `tell` is where its reader
    says who began first, and `writer` how the second one signs."""

    job: Job
    first: NodeInfo
    tried: set[str]
    began: float
    probe: bool = False
    """Whether it tries out the first node: then the second one costs no share of the budget."""
    spare: str = ""
    """The node whose slot is taken while the reader is asked whether it is needed."""
    second: str = ""
    """The node, once the generation was sent there."""
    writer: str = ""
    tell: str = ""
    hedge: asyncio.Task[OrchestraError | None] | None = None
    won: asyncio.Future[bool] = field(default_factory=lambda: asyncio.get_running_loop().create_future())
    """Whether the second one began first, once that is known."""

    @property
    def second_won(self) -> bool | None:
        """None while nobody has begun."""
        return self.won.result() if self.won.done() else None


class Hedger:
    """Of one dispatcher."""

    def __init__(self, bus: Bus, placing: Placer, calls: NodeClient, settings: HedgeSettings) -> None:
        self.bus = bus
        self.placing = placing
        self.calls = calls
        self.settings = settings
        self.first_tokens = FirstTokens(settings)
        self.budget = RetryBudget(share=settings.share, reserve=settings.reserve)

    async def generate(self, node: NodeInfo, job: Job, tried: set[str]) -> OrchestraError | None:
        """Run `job` on `node`, whose slot is taken, and where it is late on another as well; `tried` gets
        both. None when one of them ended the stream itself, whatever its end; the error otherwise."""
        tried.add(node.id)
        probe = self.placing.probes(job, node.id)
        late_after_s = self._late_after_s(job, probe)
        if late_after_s is None:
            return _failure(await self._call(node, job))
        race = HedgedCall(job, node, tried, time.monotonic(), probe)
        timer = asyncio.get_running_loop().call_later(late_after_s, self._late, race)
        try:
            error = _failure(await self._call(node, job))
            return error if race.hedge is None else await self._ended(race, race.hedge, error)
        finally:
            timer.cancel()
            if race.hedge is not None:
                await self._close(race, race.hedge)

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
        began = time.monotonic()
        outcome = await self.calls.generate(node, job, body)
        if isinstance(outcome, GenerationEnd) and job.queue.priority is Priority.INTERACTIVE:
            now = time.monotonic()
            self.first_tokens.saw(job.queue.model, now - began - outcome.writing_s, now)
        return outcome

    def _late(self, race: HedgedCall) -> None:
        """Have a second node begin too, if one has room now and the budget allows it."""
        if race.job.cancelled or race.job.expired or not (race.probe or self.budget.withdraw()):
            return
        second = self.placing.choose(race.job, without=frozenset(race.tried), sure=True)
        if second is None:
            self._not_used(race)
            return
        race.spare = second.id
        race.hedge = asyncio.get_running_loop().create_task(self._hedge(race, second))

    async def _hedge(self, race: HedgedCall, second: NodeInfo) -> OrchestraError | None:
        """Run it on `second` too, whose slot is taken, unless its reader has something to read by now."""
        job = race.job
        race.tell = self.bus.expect(lambda message: self._decided(race, message))
        try:
            race.writer, body = await handover.race(self.bus, job, race.tell)
        except OrchestraError as error:
            log.info("generation %s is late, and its reader cannot be asked: %s", job.id, error)
            body = b""
        if not body or job.cancelled:
            self._give_back(race)
            return None
        race.spare, race.second = "", second.id
        race.tried.add(second.id)
        log.info("generation %s is late on %s and goes to %s too", job.id, race.first.id, second.id)
        outcome = await self._call(second, job, body)
        if isinstance(outcome, GenerationEnd) and outcome.error is not None and outcome.events == 0:
            return from_body(outcome.error)  # its reader takes no refusal from a second one
        return _failure(outcome)

    def _give_back(self, race: HedgedCall) -> None:
        """The slot and the share of the budget that were not needed, if so."""
        if race.spare:
            self._not_used(race)
            self.placing.give_back(race.job, race.spare)
            self.placing.offer_again(race.job.queue.model)
            race.spare = ""

    def _not_used(self, race: HedgedCall) -> None:
        if not race.probe:
            self.budget.give_back()

    def _decided(self, race: HedgedCall, message: Message) -> None:
        """One of them has begun: the other stops."""
        if race.won.done() or not race.second:
            return
        race.won.set_result(message.data.decode(errors="replace") == race.writer)
        if race.won.result():
            late = HedgeLost(f"node {race.second} was asked later and began first")
            self.calls.give_up(race.first.id, race.job, "", late)
        else:
            self._give_up_second(race)

    def _give_up_second(self, race: HedgedCall) -> None:
        self.calls.give_up(race.second, race.job, race.writer, Cancelled("the first node began"))

    async def _ended(
        self, race: HedgedCall, hedge: asyncio.Task[OrchestraError | None], error: OrchestraError | None
    ) -> OrchestraError | None:
        """What came of both, since the call of the first node has ended with `error`."""
        if isinstance(error, HedgeLost):
            now = time.monotonic()
            self.first_tokens.saw(race.job.queue.model, now - race.began, now)
            self.placing.offer_again(race.job.queue.model)
            return await hedge
        if not race.second:
            return error
        if error is None:  # only one of two ends was read
            either: set[asyncio.Future[Any]] = {race.won, hedge}
            await asyncio.wait(either, timeout=DECIDED_S, return_when=asyncio.FIRST_COMPLETED)
            return await hedge if race.second_won else None
        outcome = await hedge
        return error if race.second_won is False else outcome

    async def _close(self, race: HedgedCall, hedge: asyncio.Task[OrchestraError | None]) -> None:
        self.bus.forget(race.tell)
        if race.second:
            given_up = not hedge.done() or isinstance(hedge.result(), Cancelled | None)
            outcome = "won" if race.second_won else "lost" if given_up else "failed"
            hedges(race.job.queue.model, outcome).inc()
        if not hedge.done():
            if race.second:
                self._give_up_second(race)
            hedge.cancel()
            await asyncio.wait({hedge})
        self._give_back(race)
        race.won.cancel()


def _failure(outcome: GenerationEnd | OrchestraError) -> OrchestraError | None:
    return outcome if isinstance(outcome, OrchestraError) else None
