"""Connects the pure chooser with the registry, the clock and the calls in flight."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Container, Sequence
from typing import Any, TypeVar

from actors.cluster.registry import Registry
from actors.placement.generation_log import record_breaker
from actors.placement.in_flight import InFlight
from actors.placement.job import Job
from actors.placement.model_scheduler import ModelScheduler
from actors.placement.pending_queue import PendingQueue
from actors.placement.settings import PlacementSettings
from orchestration.errors import (
    SERVER_LIMITS,
    BackendFailed,
    BusUnavailable,
    Cancelled,
    CannotContinue,
    ContentFiltered,
    DeadlineExceeded,
    InternalError,
    NodeBusy,
    NoOutput,
    OrchestraError,
    ShuttingDown,
    Unavailable,
)
from orchestration.messages import NodeInfo
from orchestration.placement import (
    Choice,
    Chooser,
    Deferral,
    Needs,
    Outcome,
    PendingGeneration,
    SlotShare,
    candidate_lines,
    explain,
)

J = TypeVar("J", bound=Job)

log = logging.getLogger(__name__)


class HedgeLost(OrchestraError):
    """A hedged generation began earlier on another node. Seen often for one node, that node hangs."""

    code = "hedge_lost"


REFUSED_S = 0.1
"""How long a node that refused work counts as full, in seconds, unless it reports earlier."""
NO_NODES: frozenset[str] = frozenset()
_NO_NODE_FAILURE = (ShuttingDown, BusUnavailable, CannotContinue, ContentFiltered)
_NODE_FAILURE = (BackendFailed, Unavailable, InternalError)


class Placer:
    """Chooses nodes for one process. `place_again` is called with a model when its waiting generations
    should be placed again."""

    def __init__(
        self,
        registry: Registry,
        in_flight: InFlight,
        pending: PendingQueue[Any],
        settings: PlacementSettings,
        place_again: Callable[[str], None],
    ) -> None:
        self.registry = registry
        self.in_flight = in_flight
        self.chooser = Chooser(settings.breaker)
        self.chooser.index.on_breaker = record_breaker
        self.model_scheduler = ModelScheduler(self.chooser.index, pending, place_again, settings.group_hold_s)
        self._place_again = place_again
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._probes: set[tuple[str, str]] = set()
        """Calls that test a failed node, by generation and node."""

    def start(self) -> None:
        for info in self.registry.nodes.values():
            self._node_changed(info.id, info)
        self.registry.on_node.append(self._node_changed)
        self.in_flight.on_count.append(self._count_changed)

    def stop(self) -> None:
        if self._node_changed in self.registry.on_node:
            self.registry.on_node.remove(self._node_changed)
        if self._count_changed in self.in_flight.on_count:
            self.in_flight.on_count.remove(self._count_changed)
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
        self.model_scheduler.stop()

    def _node_changed(self, node: str, info: NodeInfo | None) -> None:
        if info is None:
            self.chooser.index.remove(node)
            self.model_scheduler.remove_node(node)
        else:
            self.chooser.index.put(info, time.monotonic())
            self.model_scheduler.update_node(info)

    def _count_changed(self, node: str, count: int) -> None:
        self.chooser.index.set_own_count(node, count, time.monotonic())

    def mark_silent(self, node: str) -> None:
        """The node does not answer pings."""
        self.chooser.index.set_silent(node, True, time.monotonic())

    def mark_responsive(self, node: str) -> None:
        """The node answers pings again."""
        self.chooser.index.set_silent(node, False, time.monotonic())

    def other_ended(self, node: str) -> None:
        """A generation of another process on the node has ended."""
        self.chooser.index.other_ended(node, time.monotonic())

    def set_slot_share(self, turn: SlotShare) -> None:
        """Set this dispatcher's share of the slots."""
        self.chooser.index.set_slot_share(turn, time.monotonic())

    def room(self, model: str) -> tuple[int, int]:
        """Free slots and all slots of the nodes that may be used now."""
        self.chooser.index.wake(time.monotonic())
        return self.chooser.index.room(model)

    def choose(self, job: Job, *, without: frozenset[str] = NO_NODES, sure: bool = False) -> NodeInfo | None:
        """Choose a node for `job` and take its slot; None when there is none now, in which case `place_again`
        follows.

        With `sure`, nodes that failed recently or have to load the model are left out.
        """
        now = time.monotonic()
        self.model_scheduler.decide()
        choice = self.chooser.choose(job.needs, now, without=without, patient=False, sure=sure)
        if isinstance(choice, Deferral):
            self._retry_later(job.model, choice, now)
            return None
        return self._take_slot(job, choice, now)

    def start_one(self, jobs: Sequence[J], *, hurry: bool) -> tuple[J, NodeInfo] | None:
        """Choose the job to start now among `jobs`, waiting jobs of one model in their order, and take a slot
        of its node. None when none can start now, in which case `place_again` follows.

        With `hurry` no slot is left free for the sake of a faster node.
        """
        now = time.monotonic()
        self.model_scheduler.decide()
        pending = [PendingGeneration(job.needs, now - job.received_at) for job in jobs]
        start = self.chooser.start_one(pending, now, hurry=hurry)
        if isinstance(start, Deferral):
            self._retry_later(jobs[0].model, start, now)
            return None
        place, choice = start
        return jobs[place], self._take_slot(jobs[place], choice, now)

    def start_directly(self, job: Job) -> NodeInfo | None:
        """Choose a node for `job` that has the model in memory and a free slot, and take the slot; None when
        the job should wait in its queue."""
        now = time.monotonic()
        self.model_scheduler.decide()
        choice = self.chooser.choose(job.needs, now, loaded=True)
        return None if isinstance(choice, Deferral) else self._take_slot(job, choice, now)

    def _take_slot(self, job: Job, choice: Choice, now: float) -> NodeInfo:
        if choice.probe:
            self._probes.add((job.id, choice.node.id))
        if log.isEnabledFor(logging.DEBUG):
            explanation = explain(self.chooser.index, job.needs, now)
            log.debug("generation %s goes to %s: %s", job.id, choice.node.id, explanation.model_dump_json())
        self.in_flight.take(choice.node.id)
        self.model_scheduler.started(choice.node.id, job.model)
        return choice.node

    def is_probe(self, job: Job, node: str) -> bool:
        """Whether the call tests a node that has failed."""
        return (job.id, node) in self._probes

    def _retry_later(self, model: str, deferral: Deferral, now: float) -> None:
        if deferral.until is None:
            return
        loop, seconds = asyncio.get_running_loop(), deferral.until - now
        due = self._timers.get(model)
        if due is not None and not due.cancelled() and due.when() <= loop.time() + seconds:
            return
        if due is not None:
            due.cancel()
        self._timers[model] = loop.call_later(max(0.001, seconds), self._retry, model)

    def _retry(self, model: str) -> None:
        self._timers.pop(model, None)
        self._place_again(model)

    def candidates(self, job: Job) -> list[str]:
        """The candidates for `job` with their scores, and why others are left out, a line each."""
        return candidate_lines(self.chooser.index, job.needs, time.monotonic())

    def ended(self, job: Job, node: str, error: OrchestraError | None, seconds: float) -> None:
        """A call to `node` has ended after `seconds`: free the slot and learn from the outcome."""
        now = time.monotonic()
        self.in_flight.free(node)
        self.model_scheduler.ended(node, job.model, failed=error is not None)
        probe = (job.id, node) in self._probes
        self._probes.discard((job.id, node))
        if isinstance(error, NodeBusy):
            self.chooser.index.refused(node, now)
            asyncio.get_running_loop().call_later(REFUSED_S, self._trust_report, node, job.model)
        needs = job.needs
        if isinstance(error, SERVER_LIMITS):
            self.chooser.record_limit(needs.model, node, error, now, probe=probe)
            return
        self.chooser.ended(needs.model, node, self._outcome_of(needs, node, error, seconds), now, probe=probe)

    def refusals(self, model: str) -> int:
        """How often servers of `model` have refused work so far; for `refusal`."""
        return self.chooser.refusals.get(model, 0)

    def refusal(self, job: Job) -> OrchestraError | None:
        """The error for a waiting job when all servers of its model refuse work for too long, else None."""
        if job.model not in self.chooser.refusals:
            return None
        left_s = job.envelope.deadline - time.time() if job.envelope.deadline else math.inf
        return self.chooser.refusal(job.needs, time.monotonic(), left_s=left_s, since=job.refusals_before)

    def is_limited(self, model: str) -> bool:
        """Whether all servers of `model` refuse work now."""
        return self.chooser.all_limited(model, time.monotonic())

    def has_alternative(self, needs: Needs, tried: Container[str]) -> bool:
        """Whether a node outside `tried` may run it, now or when it has a free slot."""
        return self.chooser.has_alternative(needs, tried, time.monotonic())

    def place_again(self, model: str) -> None:
        """Place waiting generations, because a slot became free while its generation moved on."""
        self._place_again(model)

    def give_back(self, job: Job, node: str) -> None:
        """Free a slot that was taken but not used."""
        self.ended(job, node, Cancelled("nothing was sent to the node"), 0.0)

    def _trust_report(self, node: str, model: str) -> None:
        self.chooser.index.trust_report(node, time.monotonic())
        self._place_again(model)

    def _outcome_of(self, needs: Needs, node: str, error: OrchestraError | None, seconds: float) -> Outcome:
        if error is None:
            return self.chooser.outcome(needs, node, seconds)
        if isinstance(error, HedgeLost):
            return Outcome.SLOW
        if isinstance(error, NoOutput):
            return Outcome.HUNG
        if isinstance(error, _NO_NODE_FAILURE):
            return Outcome.UNKNOWN
        if isinstance(error, DeadlineExceeded):  # the caller may have set a short deadline
            late = self.chooser.outcome(needs, node, seconds) is Outcome.SLOW
            return Outcome.SLOW if late else Outcome.UNKNOWN
        return Outcome.FAILED if isinstance(error, _NODE_FAILURE) else Outcome.UNKNOWN

    @staticmethod
    def labels_text(job: Job) -> str:
        """The labels that `job` requires, to be appended to a message."""
        labels = ", ".join(f"{name}={value}" for name, value in sorted(job.needs.labels))
        return f" with {labels}" if labels else ""

    def can_run(self, job: Job, among: Container[str] | None = None) -> bool:
        """Whether a live node, or one of `among`, may run the job at all, now or later."""
        return self.chooser.can_run(job.needs, among)
