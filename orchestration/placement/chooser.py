"""Chooses the node for a generation.

Of the replicas with room two are drawn, the faster and the larger ones more often, and the one where the
generation would be done sooner gets it: the power of two choices (Mitzenmacher, 2001), drawn by capacity
because nodes differ. It costs the same for ten nodes and for ten thousand, and many dispatchers that all see
the same stale loads do not pile onto the one node that seems best.

A generation may also wait a moment for a fast node rather than begin on a much slower one that is idle (the
slow-server problem: Lin and Kumar, 1984, show that the best policy is such a threshold). Meanwhile one behind
it may begin there for which that is soon enough, as a short one: so the slow node is not idle, and does not
hold the long answers that make the tail.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import replace
from random import Random
from typing import NamedTuple

from orchestration.errors import OrchestraError
from orchestration.messages import ModelRates, NodeInfo
from orchestration.placement.breaker import BreakerSettings, Outcome
from orchestration.placement.needs import Needs
from orchestration.placement.pool import Pool
from orchestration.placement.rates import default_rates
from orchestration.placement.replica import Replica
from orchestration.placement.replica_index import ReplicaIndex
from orchestration.placement.scoring import Score, score, service_s
from orchestration.placement.server_limit import MARGIN_S, ServerLimit

LONG_OUTPUT = 1024
"""Tokens an answer without a limit may have before it is called slow rather than long."""
PATIENCE = 1.2
"""Waiting must promise to be so many times as fast."""
NO_NODES: frozenset[str] = frozenset()


class Choice(NamedTuple):
    """Where to. `probe` says that it tries out a node that failed before: give it to `ended`."""

    node: NodeInfo
    score: Score
    probe: bool


class Deferral(NamedTuple):
    """Nowhere for now. Ask again at `until` at the latest, or whenever something changed; None: only then.
    `by_choice` says that there is room, and that to wait promises more."""

    until: float | None
    by_choice: bool = False


class PendingGeneration(NamedTuple):
    """What waits for a node, and for how long already."""

    needs: Needs
    waited_s: float


class Chooser:
    """One dispatcher's view and its choices. `now` is in seconds on a clock that never goes back."""

    def __init__(self, settings: BreakerSettings | None = None, random: Random | None = None) -> None:
        self.random = random or Random()
        self.settings = settings or BreakerSettings()
        self.index = ReplicaIndex(self.settings, self.random)
        self.refusals: dict[str, int] = {}
        """By model, how often a server that was tried again asked to be left alone. Grows to the number of
        models that ever were."""
        self._consecutive_refusals: dict[str, int] = {}
        """The same since a node last answered well."""

    def choose(
        self,
        needs: Needs,
        now: float,
        *,
        without: frozenset[str] = NO_NODES,
        ahead: int = 0,
        waited_s: float = 0.0,
        patient: bool = True,
        sure: bool = False,
    ) -> Choice | Deferral:
        """The node to start on. Its slot is the caller's to count, with `index.loaded`.

        `ahead` generations wait before this one, which has waited `waited_s`. One that is not `patient`
        takes what is free. One that must be `sure` goes to no node that has failed lately, or has to load the
        model.
        """
        self.index.wake(now)
        pool = self.index.pool(needs, now)
        best: Replica | None = None
        best_score: Score | None = None
        for replica in pool.two(pool.ready, self.random, without):
            if sure and (replica.breaker.until or not replica.card.loaded):
                continue
            found = score(replica, needs, now)
            if best_score is None or self._is_better(replica, found, best, best_score):
                best, best_score = replica, found
        if best is None or best_score is None:
            return Deferral(self.index.next_wakeup(needs.model))
        if patient and pool.full.count and best.rates.samples:
            gain_s = (
                best_score.cost - self._full_replica_s(pool, needs, now, ahead, without) * PATIENCE - waited_s
            )
            if gain_s > 0:
                return Deferral(now + gain_s, by_choice=True)
        probe = best.breaker.begin(now)
        if probe:
            self.index.breaker_changed(best, now)
        return Choice(best.load.info, best_score, probe)

    def start_one(
        self, waiting: Sequence[PendingGeneration], now: float, *, hurry: bool
    ) -> tuple[int, Choice] | Deferral:
        """The first of those that wait, in their order, that should start now, by its place, and where.

        One that had better wait is overtaken by those that need not, for as long as it gains by that. In a
        `hurry` no slot stays free: the one starts that gives up the least.
        """
        if len(waiting) == 1 and not hurry:
            needs, waited_s = waiting[0]
            only = self.choose(needs, now, waited_s=waited_s)
            return (0, only) if isinstance(only, Choice) else only
        found: Deferral | None = None
        least_index = 0
        tried: set[Needs] = set()
        for place, (needs, waited_s) in enumerate(waiting):
            if needs in tried:  # it has waited less than the same before it
                continue
            tried.add(needs)
            choice = self.choose(needs, now, ahead=len(waiting) - 1, waited_s=waited_s)
            if isinstance(choice, Choice):
                return place, choice
            if found is None or _is_sooner(choice, found):
                found, least_index = choice, place
            if not self.index.room(needs.model)[0]:
                break
        if found is None:
            return Deferral(None)
        if hurry and found.by_choice:
            choice = self.choose(waiting[least_index].needs, now, patient=False)
            return (least_index, choice) if isinstance(choice, Choice) else choice
        return found

    @staticmethod
    def _is_better(replica: Replica, found: Score, best: Replica | None, best_score: Score) -> bool:
        if found.cost != best_score.cost or best is None:
            return found.cost < best_score.cost
        return (-replica.load.free, replica.id) < (-best.load.free, best.id)

    def _full_replica_s(
        self, pool: Pool, needs: Needs, now: float, ahead: int, without: frozenset[str]
    ) -> float:
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
        replica = self.index.replicas.get(model, {}).get(node)
        if replica is None:
            return
        if outcome is Outcome.SUCCEEDED:
            replica.limit = None
            self._consecutive_refusals.pop(model, None)
        self._end(replica, outcome, now, probe, 0.0)

    def record_limit(
        self, model: str, node: str, error: OrchestraError, now: float, *, probe: bool = False
    ) -> None:
        """The server behind `node` refused a generation: it asks to be left alone with this model."""
        replica = self.index.replicas.get(model, {}).get(node)
        if replica is None:
            return
        hold_s = error.retry_after_s or 0.0
        previous = replica.limit
        if self._end(replica, Outcome.LIMITED, now, probe, hold_s):
            self.refusals[model] = self.refusals.get(model, 0) + 1
            self._consecutive_refusals[model] = self._consecutive_refusals.get(model, 0) + 1
        # The later of two concurrent refusals may name the shorter wait.
        until = max(now + hold_s, replica.breaker.until, previous.until if previous is not None else 0.0)
        replica.limit = ServerLimit(error, until)

    def _end(self, replica: Replica, outcome: Outcome, now: float, probe: bool, hold_s: float) -> bool:
        previous = replica.breaker.until
        opened = replica.breaker.end(outcome, now, probe=probe, hold_s=hold_s)
        if probe or replica.breaker.until != previous:
            self.index.breaker_changed(replica, now)
        return opened

    def limits(self, needs: Needs, now: float) -> list[ServerLimit]:
        """What the servers of all replicas that may run this ask for now; nothing where one of them may be
        used, now or when it has room."""
        if needs.model not in self.refusals:
            return []
        found: list[ServerLimit] = []
        for replica in self.index.replicas.get(needs.model, {}).values():
            if replica.mismatch(needs):
                continue
            if replica.limit is None or replica.limit.until <= now:
                return []
            found.append(replica.limit)
        return found

    def all_limited(self, model: str, now: float) -> bool:
        """Whether the servers of all replicas ask to be left alone now."""
        if model not in self.refusals:
            return False
        replicas = self.index.replicas.get(model, {}).values()
        return bool(replicas) and all(each.limit is not None and each.limit.until > now for each in replicas)

    def refusal(self, needs: Needs, now: float, *, left_s: float, since: int) -> OrchestraError | None:
        """What to tell a generation that waits for servers which all ask to be left alone: for longer than
        the `left_s` seconds to its deadline, or too often by now, and again since `refusals` was `since`."""
        limits = self.limits(needs, now)
        if not limits:
            return None
        soonest = min(limits, key=lambda limit: limit.until)
        often = self._consecutive_refusals.get(needs.model, 0) >= self.settings.max_refusals * len(limits)
        if (often and self.refusals[needs.model] > since) or soonest.until - now > left_s - MARGIN_S:
            return soonest.refusal(now)
        return None

    def outcome(self, needs: Needs, node: str, seconds: float) -> Outcome:
        """Whether a call that took `seconds` was slow, were its answer as long as it may be."""
        replica = self.index.replicas.get(needs.model, {}).get(node)
        if replica is None or seconds < self.settings.slow_s:
            return Outcome.SUCCEEDED
        longest = needs.output_tokens if needs.bounded else LONG_OUTPUT
        others = max(0, replica.load.info.slots - 1)
        expected = service_s(replica, replace(needs, output_tokens=longest), others)
        if replica.card.loaded:  # it may have been loaded first
            expected += replica.card.load_s
        return Outcome.SLOW if seconds > self.settings.slow_factor * expected else Outcome.SUCCEEDED

    def records(self, model: str) -> dict[str, ModelRates]:
        """What each node of `model` has measured of it. A prompt's token takes no less than its hardware lets
        one guess: the prompts that it has seen may all have been short."""
        found: dict[str, ModelRates] = {}
        for replica in self.index.replicas.get(model, {}).values():
            info = replica.load.info
            measured = info.rates.get(model)
            if measured is not None:
                each_s = max(
                    measured.prompt_token_s, default_rates(replica.card, info.hardware).prompt_token_s
                )
                found[info.id] = measured.model_copy(update={"prompt_token_s": each_s})
        return found

    def has_alternative(self, needs: Needs, tried: Container[str], now: float) -> bool:
        """Whether another than those nodes may run it now, or when it has room."""
        return any(
            each.id not in tried and each.usable(now) and not each.mismatch(needs)
            for each in self.index.replicas.get(needs.model, {}).values()
        )

    def can_run(self, needs: Needs, among: Container[str] | None = None) -> bool:
        """Whether any live replica of the model may run it at all, now or later; `among` names the nodes."""
        replicas = self.index.replicas.get(needs.model, {}).values()
        return any(not each.mismatch(needs) for each in replicas if among is None or each.id in among)


def _is_sooner(one: Deferral, other: Deferral) -> bool:
    """Whether `one` ends first, those by choice before all that cannot start."""
    if one.by_choice != other.by_choice:
        return one.by_choice
    return one.until is not None and (other.until is None or one.until < other.until)
