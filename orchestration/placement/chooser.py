"""Chooses the node for a generation.

Of the replicas with room two are drawn, the faster and the larger ones more often, and the one where the
generation would be done sooner gets it: the power of two choices (Mitzenmacher, 2001), drawn by capacity
because nodes differ. It costs the same for ten nodes and for ten thousand, and many dispatchers that all see
the same stale loads do not pile onto the one node that seems best.

A generation may also wait a moment for a fast node rather than begin on a much slower one that is idle (the
slow-server problem: Lin and Kumar, 1984, show that the best policy is such a threshold).
"""

from __future__ import annotations

from dataclasses import replace
from random import Random
from typing import NamedTuple

from orchestration.messages import NodeInfo
from orchestration.placement.breaker import BreakerSettings, Outcome
from orchestration.placement.needs import Needs
from orchestration.placement.pool import Pool
from orchestration.placement.replica import Replica
from orchestration.placement.scoring import Score, score, service_s
from orchestration.placement.view import View

LONG_OUTPUT = 1024
"""Tokens an answer without a limit may have before it is called slow rather than long."""
PATIENCE = 1.2
"""Waiting must promise to be so many times as fast."""
NOBODY: frozenset[str] = frozenset()


class Choice(NamedTuple):
    """Where to. `probe` says that it tries out a node that failed before: give it to `ended`."""

    node: NodeInfo
    score: Score
    probe: bool


class Waits(NamedTuple):
    """Nowhere for now. Ask again at `until` at the latest, or whenever something changed; None: only then."""

    until: float | None


class Chooser:
    """One dispatcher's view and its choices. `now` is in seconds on a clock that never goes back."""

    def __init__(self, settings: BreakerSettings | None = None, random: Random | None = None) -> None:
        self.random = random or Random()
        self.settings = settings or BreakerSettings()
        self.view = View(self.settings, self.random)

    def choose(
        self,
        needs: Needs,
        now: float,
        *,
        without: frozenset[str] = NOBODY,
        ahead: int = 0,
        waited_s: float = 0.0,
        patient: bool = True,
    ) -> Choice | Waits:
        """The node to start on. Its slot is the caller's to count, with `view.loaded`.

        `ahead` generations wait before this one, which has waited `waited_s`. One that is not `patient`
        takes what is free.
        """
        self.view.wake(now)
        pool = self.view.pool(needs, now)
        best: Replica | None = None
        best_score: Score | None = None
        for replica in pool.two(pool.ready, self.random, without):
            found = score(replica, needs, now)
            if best_score is None or self._better(replica, found, best, best_score):
                best, best_score = replica, found
        if best is None or best_score is None:
            return Waits(self.view.next_wake(needs.model))
        if patient and pool.full.count and best.rates.samples:
            spare = best_score.cost - self._sooner(pool, needs, now, ahead, without) * PATIENCE - waited_s
            if spare > 0:
                return Waits(now + spare)
        probe = best.breaker.begin(now)
        if probe:
            self.view.breaker_changed(best, now)
        return Choice(best.load.info, best_score, probe)

    @staticmethod
    def _better(replica: Replica, found: Score, best: Replica | None, best_score: Score) -> bool:
        if found.cost != best_score.cost or best is None:
            return found.cost < best_score.cost
        return (-replica.load.free, replica.id) < (-best.load.free, best.id)

    def _sooner(self, pool: Pool, needs: Needs, now: float, ahead: int, without: frozenset[str]) -> float:
        """Seconds until the answer, were it to wait for one of the full replicas."""
        soonest = float("inf")
        for replica in pool.two(pool.full, self.random, without):
            found = score(replica, needs, now)
            others = max(0, replica.load.info.slots - 1)
            each = service_s(replica, needs, others) * found.tries * found.slowdown
            wait = each * (ahead + 1) / replica.load.info.slots
            soonest = min(soonest, wait + found.cost)
        return soonest

    def ended(self, model: str, node: str, outcome: Outcome, now: float, *, probe: bool = False) -> None:
        """A generation that was sent to `node` is over."""
        replica = self.view.replicas.get(model, {}).get(node)
        if replica is None:
            return
        before = replica.breaker.until
        replica.breaker.end(outcome, now, probe=probe)
        if probe or replica.breaker.until != before:
            self.view.breaker_changed(replica, now)

    def outcome(self, needs: Needs, node: str, seconds: float) -> Outcome:
        """Whether a call that took `seconds` was slow, were its answer as long as it may be."""
        replica = self.view.replicas.get(needs.model, {}).get(node)
        if replica is None or seconds < self.settings.slow_s:
            return Outcome.WELL
        longest = needs.output_tokens if needs.bounded else LONG_OUTPUT
        others = max(0, replica.load.info.slots - 1)
        expected = service_s(replica, replace(needs, output_tokens=longest), others)
        return Outcome.SLOW if seconds > self.settings.slow_factor * expected else Outcome.WELL

    def possible(self, needs: Needs) -> bool:
        """Whether any live replica of the model may run it at all, now or later."""
        return any(not each.misfit(needs) for each in self.view.replicas.get(needs.model, {}).values())
