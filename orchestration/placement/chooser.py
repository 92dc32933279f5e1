"""Chooses the node for a generation.

Two of the replicas with a free slot are drawn, faster and larger ones more often, and the one that would
finish the generation sooner gets it: the power of two choices (Mitzenmacher, 2001), drawn by capacity because
nodes differ. The cost is the same for ten nodes and for ten thousand, and dispatchers that see the same
outdated loads do not all choose the same node.

A generation may also wait for a fast node instead of starting on a much slower one that is free (the
slow-server problem: Lin and Kumar, 1984, show that the best policy is such a threshold). Meanwhile a later
generation may start there if that is soon enough for it, a short one for example. So the slow node is not
idle, and does not get the long answers that make the tail.
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
"""Tokens assumed for an answer without a limit, when it is decided whether its call was slow."""
PATIENCE = 1.2
"""A generation waits for a full node only if the answer would come this many times sooner."""
NO_NODES: frozenset[str] = frozenset()


class Choice(NamedTuple):
    """The chosen node. `probe` says that the call tests a node that has failed: pass it to `ended`."""

    node: NodeInfo
    score: Score
    probe: bool


class Deferral(NamedTuple):
    """No node for now. Choose again at `until`, or earlier when something changes; with None only then.

    `by_choice` says that a slot is free, and that waiting promises an earlier answer.
    """

    until: float | None
    by_choice: bool = False


class PendingGeneration(NamedTuple):
    """A generation that waits for a node, and how long it has waited."""

    needs: Needs
    waited_s: float


class Chooser:
    """The choices of one process. `now` is in seconds on a monotonic clock."""

    def __init__(self, settings: BreakerSettings | None = None, random: Random | None = None) -> None:
        self.random = random or Random()
        self.settings = settings or BreakerSettings()
        self.index = ReplicaIndex(self.settings, self.random)
        self.refusals: dict[str, int] = {}
        """The number of refusals of servers by model, counted once for each time a server was tried. Has an
        entry for each model that ever had one."""
        self._consecutive_refusals: dict[str, int] = {}
        """The refusals by model since a node last succeeded."""

    def update_settings(self, settings: BreakerSettings) -> None:
        """Use other settings from now on."""
        self.settings = settings
        self.index.update_settings(settings)

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
        loaded: bool = False,
    ) -> Choice | Deferral:
        """Choose the node to start on. The caller counts the slot with `index.set_own_count`.

        `ahead` generations wait before this one, which has waited for `waited_s`. One that is not `patient`
        takes any free slot. With `loaded`, nodes that have to load the model are left out; with `sure`, those
        that failed recently too.
        """
        self.index.wake(now)
        pool = self.index.pool(needs, now)
        best: Replica | None = None
        best_score: Score | None = None
        for replica in pool.two(pool.ready, self.random, without):
            if (sure or loaded) and not replica.card.loaded:
                continue
            if sure and replica.breaker.until:
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
        """The first of the waiting generations, in their order, that should start now: its index and its
        node.

        A generation that gains by waiting is overtaken by others that do not. With `hurry` no slot stays
        free: the generation that loses the least starts.
        """
        if len(waiting) == 1 and not hurry:
            needs, waited_s = waiting[0]
            only = self.choose(needs, now, waited_s=waited_s)
            return (0, only) if isinstance(only, Choice) else only
        found: Deferral | None = None
        least_index = 0
        tried: set[Needs] = set()
        for place, (needs, waited_s) in enumerate(waiting):
            if needs in tried:  # it has waited for a shorter time than the equal one before it
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
        """Seconds until the answer if the generation waits for a full replica."""
        soonest = float("inf")
        for replica in pool.two(pool.full, self.random, without):
            found = score(replica, needs, now)
            others = max(0, replica.load.info.slots - 1)
            each = service_s(replica, needs, others) * found.tries * found.slowdown
            wait = each * (ahead + 1) / replica.load.info.slots
            soonest = min(soonest, wait + found.cost)
        return soonest

    def ended(self, model: str, node: str, outcome: Outcome, now: float, *, probe: bool = False) -> None:
        """A generation has ended on `node`."""
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
        """The server behind `node` refused a generation of this model with `error`."""
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
        """The limits of the servers of all replicas that may run this; empty when one of them may be used,
        now or when it has a free slot."""
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
        """Whether the servers of all replicas refuse work now."""
        if model not in self.refusals:
            return False
        replicas = self.index.replicas.get(model, {}).values()
        return bool(replicas) and all(each.limit is not None and each.limit.until > now for each in replicas)

    def refusal(self, needs: Needs, now: float, *, left_s: float, since: int) -> OrchestraError | None:
        """The error for a generation whose servers all refuse work, or None while it should wait.

        It is refused when the servers refuse work for longer than the `left_s` seconds to its deadline, or
        when they have refused too often in a row and again since `refusals` was `since`.
        """
        limits = self.limits(needs, now)
        if not limits:
            return None
        soonest = min(limits, key=lambda limit: limit.until)
        often = self._consecutive_refusals.get(needs.model, 0) >= self.settings.max_refusals * len(limits)
        if (often and self.refusals[needs.model] > since) or soonest.until - now > left_s - MARGIN_S:
            return soonest.refusal(now)
        return None

    def outcome(self, needs: Needs, node: str, seconds: float) -> Outcome:
        """Whether a successful call of `seconds` was slow, assuming the longest answer that it may have
        given."""
        replica = self.index.replicas.get(needs.model, {}).get(node)
        if replica is None or seconds < self.settings.slow_s:
            return Outcome.SUCCEEDED
        longest = needs.output_tokens if needs.bounded else LONG_OUTPUT
        others = max(0, replica.load.info.slots - 1)
        expected = service_s(replica, replace(needs, output_tokens=longest), others)
        if replica.card.loaded:  # the model may have been loaded during the call
            expected += replica.card.load_s
        return Outcome.SLOW if seconds > self.settings.slow_factor * expected else Outcome.SUCCEEDED

    def records(self, model: str) -> dict[str, ModelRates]:
        """The rates that each node of `model` has measured. The time of a prompt token is at least the
        default for the node's hardware, because the measured prompts may all have been short."""
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
        """Whether a node outside `tried` may run it, now or when it has a free slot."""
        return any(
            each.id not in tried and each.usable(now) and not each.mismatch(needs)
            for each in self.index.replicas.get(needs.model, {}).values()
        )

    def can_run(self, needs: Needs, among: Container[str] | None = None) -> bool:
        """Whether any live replica, or one of the nodes in `among`, may run it at all, now or later."""
        replicas = self.index.replicas.get(needs.model, {}).values()
        return any(not each.mismatch(needs) for each in replicas if among is None or each.id in among)


def _is_sooner(one: Deferral, other: Deferral) -> bool:
    """Whether `one` ends first. Deferrals by choice come before those without any node."""
    if one.by_choice != other.by_choice:
        return one.by_choice
    return one.until is not None and (other.until is None or one.until < other.until)
