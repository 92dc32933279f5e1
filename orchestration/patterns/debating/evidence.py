"""Weighs the positions of a debate, and decides when a later one may replace that of the first round.

The answers of the first round are independent, those of later rounds are not: most debaters that change their
mind adopt the position of the majority or of the most confident, right or wrong (Estornell and Liu,
"Multi-LLM Debate", NeurIPS 2024; Choi et al., "Debate or Vote", 2025). So a debater that adopts another's
position counts for it in part.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestration.patterns.base import StepResult
from orchestration.patterns.clipping import clip
from orchestration.patterns.consensus import AnswerGroup, AnswerKind, VoteCount
from orchestration.patterns.voting.answer_pool import AnswerPool

MAX_FOLLOWER_SHARE = 0.5
"""Maximum share that a follower's vote counts. It is reached where its old position had no weight, and falls
as the weight of the old position rises."""
REPORTED_TOKENS = 100
"""Tokens of each answer in a flip; the run's steps hold it whole."""
ROUNDING = 1e-6

Texts = Mapping[int, str]
"""The text of each debater's position, by its number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Flip:
    """A change of position in one round: of a debater, or of the debate's lead where `debater` is None. The
    weights are those of the old and the new position: before the round for a debater; of the old and the new
    leader for the lead. `counts` is the share that the debater's vote counts from then on; for the lead, 1
    where the change is accepted and 0 where not."""

    round: int
    debater: int | None
    before: str
    after: str
    before_weight: float
    after_weight: float
    counts: float

    def describe(self) -> dict[str, Any]:
        return {
            "round": self.round,
            "who": "the lead" if self.debater is None else f"debater {self.debater}",
            "debater": self.debater,
            "from": clip(self.before, REPORTED_TOKENS),
            "to": clip(self.after, REPORTED_TOKENS),
            "from_weight": round(self.before_weight, 3),
            "to_weight": round(self.after_weight, 3),
        } | ({"accepted": self.counts > 0} if self.debater is None else {"share": round(self.counts, 3)})


class Evidence:
    """The evidence of one debate. `first` is the vote count of the first round, `answers` are all answers in
    it."""

    def __init__(self, pool: AnswerPool) -> None:
        self.first = VoteCount(AnswerKind.TEXT, ())
        self.answers: dict[int, StepResult] = {}
        self.moved: set[int] = set()
        """Debaters that hold another position than their first one."""
        self.flips: list[Flip] = []
        self.kept_answer: StepResult | None = None
        """The leading answer of the first round, where it stays though no debater holds it any more."""
        self.flipped = self.refused = False
        """Whether another position leads than in the first round, and whether one would lead by a simple
        count."""
        self._pool = pool
        self._shares: dict[int, float] = {}

    def record_first_round(self, count: VoteCount, answers: Mapping[int, StepResult]) -> None:
        """Record the first round. Its leader may weigh less than others, where the record says that the most
        trusted model is right more often than the vote."""
        self.first, self.answers = count, dict(answers)
        self._shares = dict.fromkeys(answers, 1.0)

    async def record_round(
        self,
        number: int,
        before: tuple[VoteCount, Texts],
        now: tuple[VoteCount, Texts],
        changed: Sequence[int],
    ) -> VoteCount:
        """Record a later round, in which the debaters `changed` took other positions. Returns the count, led
        by the position with the most weight as evidence; the first round's leader stays unless another
        outweighs it."""
        shares = {each: await self._moved(number, each, before, now) for each in changed}
        self._shares |= shares
        count, texts = now
        if not count.groups or not self.first.groups:
            return count
        weights = {group: self._weight(group.voters) for group in count.groups}
        best = max(count.groups, key=lambda group: (group.pass_rate or 0.0, round(weights[group], 9)))
        leader_now = await self._first_leader(count, texts)
        outcome = (
            best
            if best is leader_now or await self._replaces(best, weights[best], count, texts)
            else leader_now
        )
        self.kept_answer = self.answers[self.first.groups[0].representative] if outcome is None else None
        await self._lead(number, (count, texts), outcome, weights, stays=outcome is leader_now)
        return count if outcome is None else count.led_by(outcome.representative)

    async def first_round_groups(self, count: VoteCount, texts: Texts, answer: str) -> dict[int, int]:
        """The group of each debater in the first round: 0 for `answer`, the debate's outcome, and for the
        answer it came from; other answers are numbered from 1. Debaters that could not be counted are left
        out."""
        representative = count.groups[0].representative if count.groups and self.kept_answer is None else None
        still = set(count.groups[0].voters) - self.moved if representative is not None else set[int]()
        ours: list[AnswerGroup] = []
        for group in self.first.groups:
            answers = [self.answers[voter].text for voter in group.voters]
            if not still.isdisjoint(group.voters) or any(
                [await self._pool.agree(count.kind, text, answer) for text in answers]
            ):
                ours.append(group)
        if (
            not ours and count.kind is AnswerKind.TEXT
        ):  # a text that was improved comes from its writer's first
            ours = [group for group in self.first.groups if representative in group.voters]
        others = [group for group in self.first.groups if group not in ours]
        found = {voter: 0 for group in ours for voter in group.voters}
        return found | {voter: at for at, group in enumerate(others, 1) for voter in group.voters}

    @property
    def _first_text(self) -> str:
        return self.answers[self.first.groups[0].representative].text

    @property
    def _is_clear(self) -> bool:
        """Whether the first round had a clear leader: not tied, and in free texts, which are rewritten in
        every round, given by several debaters."""
        leader, *others = self.first.groups
        weight = max((group.weight for group in others), default=0.0)
        pass_rate = max((group.pass_rate or 0.0 for group in others), default=0.0)
        is_clear = abs(leader.weight - weight) > ROUNDING or (leader.pass_rate or 0.0) > pass_rate
        return is_clear and (self.first.kind is not AnswerKind.TEXT or len(leader.voters) > 1)

    async def _moved(
        self, number: int, debater: int, before: tuple[VoteCount, Texts], now: tuple[VoteCount, Texts]
    ) -> float:
        """The share that the debater's vote counts from now on: 1 for its own first answer and for a new
        position, else a part by the weight of the position it adopts against the one it leaves."""
        (count, texts), (after, new_texts) = before, now
        left = next((group for group in count.groups if debater in group.voters), None)
        adopted = await self._group_of(after.kind, new_texts[debater], count, texts)
        against = self._weight(left.voters) if left is not None else 0.0
        weight = self._weight(adopted.voters) if adopted is not None else 0.0
        own = await self._pool.agree(after.kind, new_texts[debater], self.answers[debater].text)
        (self.moved.discard if own else self.moved.add)(debater)
        counts = 1.0
        if not own and adopted is not None and adopted is not left:
            counts = MAX_FOLLOWER_SHARE * weight / (weight + against)
        flip = Flip(
            round=number,
            debater=debater,
            before=texts[debater],
            after=new_texts[debater],
            before_weight=against,
            after_weight=weight,
            counts=counts,
        )
        self.flips.append(flip)
        return counts

    async def _replaces(self, group: AnswerGroup, weight: float, count: VoteCount, texts: Texts) -> bool:
        """Whether a position may replace the first round's leader."""
        leader, bar = self.first.groups[0], max(each.weight for each in self.first.groups)
        if not self._is_clear or (group.pass_rate or 0.0) > (leader.pass_rate or 0.0):
            return True
        known = {voter: answer.text for voter, answer in self.answers.items()}
        before = await self._group_of(count.kind, texts[group.representative], self.first, known)
        if before is None and count.kind is AnswerKind.TEXT:  # a better wording of their position
            return weight > bar - ROUNDING
        return weight > bar + ROUNDING

    async def _lead(
        self,
        number: int,
        now: tuple[VoteCount, Texts],
        outcome: AnswerGroup | None,
        weights: Mapping[AnswerGroup, float],
        *,
        stays: bool,
    ) -> None:
        """Record a flip where the simple count, or the evidence, has another leader than the first round."""
        (count, texts), first = now, self._first_text
        kind = count.kind
        led = count.groups[0] if outcome is None or stays else outcome
        text = texts[led.representative]
        differs = self._is_clear and not (stays and led is outcome)
        self.flipped, self.refused = differs and not stays, differs and stays
        last = next((flip for flip in reversed(self.flips) if flip.debater is None), None)
        is_known = last is not None and (last.counts > 0) != stays
        if not differs or (is_known and last is not None and await self._pool.agree(kind, last.after, text)):
            return
        flip = Flip(
            round=number,
            debater=None,
            before=first,
            after=text,
            before_weight=self.first.groups[0].weight,
            after_weight=weights[led],
            counts=float(not stays),
        )
        self.flips.append(flip)

    async def _first_leader(self, count: VoteCount, texts: Texts) -> AnswerGroup | None:
        """The group that holds the position of the first round's leader, in any words."""
        unmoved = set(self.first.groups[0].voters) - self.moved
        same = await self._group_of(count.kind, self._first_text, count, texts)
        return same or next((group for group in count.groups if not unmoved.isdisjoint(group.voters)), None)

    async def _group_of(
        self, kind: AnswerKind, text: str, count: VoteCount, texts: Texts
    ) -> AnswerGroup | None:
        """The group that holds the position of `text`."""
        for group in count.groups:
            if await self._pool.agree(kind, text, texts[group.representative]):
                return group
        return None

    def _weight(self, voters: Sequence[int]) -> float:
        """The weight of a position: each voter adds its own joint weight, times the share that its vote
        counts."""
        total, counted = 0.0, list[int]()
        for voter in sorted(voters, key=lambda each: (-self._shares[each], each)):
            alone = self._pool.weight_of(counted)
            counted.append(voter)
            total += self._shares[voter] * (self._pool.weight_of(counted) - alone)
        return total
