"""Decides when a vote is over, and how many voters are asked until then.

Samples of one model are draws from one distribution: see `orchestration.patterns.consensus.quorum`. Different
models are not: their records predict their votes, see `orchestration.trust.early_stop`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Protocol

from orchestration.patterns.consensus import TEST_NAME, VoteCount, lead_probability
from orchestration.patterns.voting.answer_pool import AnswerPool
from orchestration.patterns.voting.voters import Voter
from orchestration.trust.early_stop import LeadForecast, forecast_lead
from orchestration.trust.trust import Trust

ROUNDING = 1e-9


class Decision(Protocol):
    """Decides one vote. `test` names the statistical test, for the report; `follow_ups` are the voters that
    were asked only because others disagreed."""

    test: str
    confidence: float
    follow_ups: set[int]

    def outlook(self, count: VoteCount, pending: Sequence[Voter]) -> LeadForecast:
        """The probability that the leader still leads when `pending` have voted."""

    def is_over(self, count: VoteCount, pending: Sequence[Voter]) -> bool:
        """Whether no further voter need be heard."""

    def with_leader(self, count: VoteCount) -> VoteCount:
        """The count with the group first that is to be the answer."""

    def number_to_start(self, count: VoteCount, running: Sequence[Voter], waiting: Sequence[Voter]) -> int:
        """How many of `waiting`, in their order, are to start now."""


class SampleDecision:
    """A vote among samples of one model."""

    test = TEST_NAME

    def __init__(self, confidence: float) -> None:
        self.confidence = confidence
        self.follow_ups: set[int] = set()

    def outlook(self, count: VoteCount, pending: Sequence[Voter]) -> LeadForecast:
        if not count.groups:
            return LeadForecast(0.0, proven=True)
        pass_rate = count.groups[0].pass_rate
        if pass_rate is not None and pending:  # only a program that passes all examples cannot be beaten
            return LeadForecast(float(pass_rate == 1), proven=True)
        leader, *others = (group.weight for group in count.groups)
        weights = [voter.weight for voter in pending]
        return LeadForecast(
            lead_probability(leader, max(others, default=0.0), sum(others), weights), proven=True
        )

    def is_over(self, count: VoteCount, pending: Sequence[Voter]) -> bool:
        return self.outlook(count, pending).probability >= self.confidence

    def with_leader(self, count: VoteCount) -> VoteCount:
        return count

    def number_to_start(self, count: VoteCount, running: Sequence[Voter], waiting: Sequence[Voter]) -> int:
        return len(waiting)


class PanelDecision:
    """A vote among different models. The most trusted are asked first, as many as decide the vote where they
    agree; others follow while it is open. If votes have been wrong more often than the best model alone, only
    the most trusted voter is asked and its answer leads. The decision does not wait for the voters `late`."""

    test = "probability, by the records of the models, that the leader leads when all have voted"

    def __init__(self, trust: Trust, pool: AnswerPool, confidence: float, voters: Sequence[Voter]) -> None:
        """`voters` are in the order in which they are asked."""
        self.confidence = confidence
        self.follow_ups: set[int] = set()
        self.late: set[int] = set()
        self._trust = trust
        self._pool = pool
        first = voters[0]
        prefers = trust.prefers_best and trust.is_proven(first.model or "")
        self.preferred = first if prefers else None
        """The voter whose answer is better than the vote's, if any."""

    def outlook(self, count: VoteCount, pending: Sequence[Voter]) -> LeadForecast:
        leader = count.leader
        if leader is not None and leader.pass_rate is not None and pending:
            return LeadForecast(float(leader.pass_rate == 1), proven=True)
        if leader is not None and self._prefers(leader.voters):
            return LeadForecast(1.0, proven=True)
        if self._waits_for(self.preferred, pending):
            return LeadForecast(0.0, proven=True)
        groups = [self._pool.models_of(group.voters) for group in count.groups]
        return forecast_lead(self._trust, groups, [voter.model or "" for voter in pending])

    def is_over(self, count: VoteCount, pending: Sequence[Voter]) -> bool:
        """A vote does not end before the most trusted voter has answered, unless that one is late."""
        return self._decides(self.outlook(count, pending)) and not self._waits_for_best(count, pending)

    def with_leader(self, count: VoteCount) -> VoteCount:
        return count if self.preferred is None else count.led_by(self.preferred.number)

    def number_to_start(self, count: VoteCount, running: Sequence[Voter], waiting: Sequence[Voter]) -> int:
        if self._waits_for(self.preferred, [*running, *waiting]):
            return int(self.preferred in waiting)
        if count.leader is not None and self._prefers(count.leader.voters):
            return 0
        groups = [self._pool.models_of(group.voters) for group in count.groups] or [[]]
        busy = [voter.model or "" for voter in running if voter.number not in self.late]
        slow = [voter.model or "" for voter in running if voter.number in self.late]
        models = [voter.model or "" for voter in waiting]

        def decides(more: int) -> bool:
            """Whether the vote is decided where so many more agree with the leader; it is monotonic in
            `more`."""
            agreed = [[*groups[0], *busy, *models[:more]], *groups[1:]]
            return bool(agreed[0]) and self._decides(
                forecast_lead(self._trust, agreed, [*slow, *models[more:]])
            )

        return bisect_left(range(len(waiting)), True, key=decides)

    def _decides(self, forecast: LeadForecast) -> bool:
        return forecast.proven and forecast.probability >= self.confidence - ROUNDING

    def _prefers(self, voters: Sequence[int]) -> bool:
        return self.preferred is not None and self.preferred.number in voters

    def _waits_for(self, voter: Voter | None, pending: Sequence[Voter]) -> bool:
        return voter in pending and voter is not None and voter.number not in self.late

    def _waits_for_best(self, count: VoteCount, pending: Sequence[Voter]) -> bool:
        """Whether a pending voter that is not late is trusted more than all that have voted."""
        voted = [voter for group in count.groups for voter in group.voters]
        heaviest = max((self._trust.weight(model) for model in self._pool.models_of(voted)), default=0.0)
        return any(
            voter.weight > heaviest + ROUNDING and self._waits_for(voter, pending) for voter in pending
        )
