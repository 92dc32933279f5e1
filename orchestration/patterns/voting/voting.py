"""A vote: voters answer the same question, and their consensus is the answer as soon as it is likely."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from orchestration.errors import OrchestraError
from orchestration.messages import TextDelta
from orchestration.patterns.base import StepOptions, StepResult
from orchestration.patterns.consensus import AnswerKind, VoteCount, asked_kind
from orchestration.patterns.run_context import COORDINATOR, RunContext
from orchestration.patterns.voting.answer_pool import AnswerPool
from orchestration.patterns.voting.decision import Decision, PanelDecision, SampleDecision
from orchestration.patterns.voting.report import VoteReporter
from orchestration.patterns.voting.sample_pool import SamplePool, VoterResult
from orchestration.patterns.voting.streamer import VoteStreamer
from orchestration.patterns.voting.voters import Voter, one_model, with_instructions

_JSON = re.compile(r"\bJSON\b|```json", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class VotePatience:
    """How long a vote waits for one voter. Others are asked instead of a late voter. The vote goes on without
    one that timed out, even where its answer would decide."""

    late_factor: float = 5.0
    min_late_s: float = 5.0
    """A voter without known times is late after `late_factor` times the seconds of the slowest other plus
    `min_late_s`."""
    alone_s: float = 60.0
    """The same where no other has answered."""
    timeout_factor: float = 4.0
    min_timeout_s: float = 30.0
    """A voter times out after `timeout_factor` times the seconds after which it is late, and not before
    `min_timeout_s`."""

    def late_s(self, others: Sequence[float]) -> float:
        """Seconds after which a voter without known times is late, by the seconds of the other answers."""
        return self.late_factor * max(others) + self.min_late_s if others else self.alone_s

    def timeout_s(self, late_s: float) -> float:
        """Seconds after which a voter times out that is late after `late_s`."""
        return max(self.min_timeout_s, self.timeout_factor * late_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteRules:
    """Rules of a vote. It ends early where the leader keeps its lead with a probability of `confidence`. Its
    answer is streamed from a probability of `stream_at` on, and when only one voter is pending, so that the
    slowest voter delays no stream. With `cascade`, voters are asked only while the outcome is open."""

    kind: AnswerKind = AnswerKind.AUTO
    confidence: float = 0.95
    stream_at: float = 0.9
    early: bool = True
    cascade: bool = True
    min_similarity: float = 0.8
    max_parallel: int = 16
    think: bool = False
    synthesis: bool = False
    patience: VotePatience = VotePatience()


class Voting:
    """Runs one vote; `title` names its part of the run's report."""

    def __init__(self, context: RunContext, voters: Sequence[Voter], rules: VoteRules, title: str) -> None:
        """Raises `InvalidRequest` when nothing is asked."""
        self.context = context
        self.rules = rules
        self.pool = AnswerPool(context, rules.kind, rules.min_similarity)
        samples = one_model([voter.model for voter in voters])
        order = sorted(voters, key=lambda voter: (-voter.weight, voter.number))
        panel = PanelDecision(context.trust, self.pool, rules.confidence, order)
        self.decision: Decision = SampleDecision(rules.confidence) if samples else panel
        self._panel = None if samples else panel
        self.report = VoteReporter(context, title, voters, self.decision)
        self.streamer = VoteStreamer(context, synthesis=rules.synthesis)
        self.messages = context.run.messages
        if context.run.guide is None:
            kind = rules.kind if rules.kind is not AnswerKind.AUTO else asked_kind(self.pool.question)
            self.messages = with_instructions(
                self.messages, kind, think=rules.think, small=context.is_small()
            )
        self.samples = SamplePool(
            order, self._ask_voter, max_parallel=rules.max_parallel, affords=self._affords
        )
        self._first_error: OrchestraError | None = None
        self._timed_out: dict[int, float] = {}
        """The voters that timed out, with the seconds that they had."""
        self._late: set[int] = set()
        """Voters that have taken longer than they ever did."""
        self._waits_for_end = context.run.guide is not None or any(
            _JSON.search(message.content) for message in context.run.messages if message.role != "assistant"
        )
        """Whether a program reads the answer, so that no text may be streamed that is corrected later."""
        models = [voter.model or "" for voter in voters]
        self._audited = rules.early and not samples and context.trust.needs_audit(models)
        """Whether the vote waits for all voters, to check how often an early end would have been right."""
        self._starts_all = samples or self._audited or not (rules.early and rules.cascade)
        """Whether all voters start at once."""

    async def perform(self) -> AsyncGenerator[TextDelta | StepResult, None]:
        """Stream the answer, and a correction where it was streamed too soon. Raises the first error when no
        voter answers."""
        self.context.budget.has_reserve = self.rules.synthesis
        count = VoteCount(AnswerKind.TEXT, ())
        async with self.samples:
            while True:
                self._mark_late()
                if self.pool.answers and self._ends_early(count):
                    break
                self._start(count)
                if not self.samples.running:
                    break
                ended = await self.samples.next_results(self._patience_s())
                if not ended:
                    continue
                count = await self._count(ended)
                if self._may_stream(count) and not self._ends_early(count):
                    async with aclosing(self.streamer.stream_leader(count, self.pool.answers)) as parts:
                        async for part in parts:
                            yield part
        for voter in self.samples.stopped:
            if voter.number in self._timed_out:
                seconds = self._timed_out[voter.number]
                await self.context.warn(f"went on without {voter}: no answer after {seconds:.0f} s")
        if not self.pool.answers:
            assert self._first_error is not None
            raise self._first_error
        count = await self._with_unclear(count)
        all_invalid = count.leader is None
        if all_invalid:
            count = await self.pool.count_texts()
        count = self.streamer.keep_streamed(count)
        await self.report.close(count, self.pool, self.samples, all_invalid=all_invalid)
        async with aclosing(self.streamer.stream_outcome(count, self.pool.answers)) as items:
            async for item in items:
                yield item

    async def _ask_voter(self, voter: Voter) -> StepResult:
        def count_tokens(part: TextDelta) -> None:
            self.report.tokens_written[voter.number] += part.tokens

        return await self.context.ask(
            COORDINATOR,
            self.messages,
            name=voter.name,
            on_delta=count_tokens,
            options=StepOptions(sampling=voter.sampling, guide=self.context.run.guide, model=voter.model),
        )

    def _affords(self, voters: int) -> bool:
        """Whether the tokens that are left allow so many voters to write their maximum at once. Fewer at once
        means that more can vote, since what one leaves is available to the next."""
        max_tokens = self.context.run.sampling.max_tokens or self.context.limits.final_tokens
        return self.context.budget.affords(voters, self.messages, COORDINATOR, max_tokens)

    def _start(self, count: VoteCount) -> None:
        """Start the voters that the decision wants, and at least one where none is running."""
        waiting = self.samples.waiting
        if not waiting:
            return
        number = len(waiting)
        if not self._starts_all:
            number = self.decision.number_to_start(count, self.samples.running, waiting)
        follows = bool(self.pool.answers) and not self._starts_all
        before = list(waiting)
        self.samples.start(number if number or self.samples.running else 1)
        if follows:
            started = before[: len(before) - len(self.samples.waiting)]
            self.decision.follow_ups |= {voter.number for voter in started}

    def _mark_late(self) -> None:
        """Note the voters that take longer than they ever did, so that others are asked instead."""
        timed = self._timed()
        self._timed_out = {
            voter.number: seconds for voter, seconds, (_, timeout) in timed if seconds >= timeout
        }
        self._late = {voter.number for voter, seconds, (late, _) in timed if seconds >= late}
        if self._panel is not None:
            self._panel.late = self._late

    def _patience_s(self) -> float | None:
        """Seconds until the next voter is late or times out; None where all running voters are or have."""
        waits = [
            max(0.0, at - seconds)
            for voter, seconds, times in self._timed()
            for at, known in zip(times, (self._late, self._timed_out), strict=True)
            if voter.number not in known
        ]
        return min(waits, default=None)

    def _timed(self) -> list[tuple[Voter, float, tuple[float, float]]]:
        """Each running voter, its seconds so far, and the seconds after which it is late and times out."""
        if not self.rules.early:
            return []
        kind, lengths = self.context.facts.question_kind, self.context.facts.lengths
        patience = self.rules.patience
        others = [answer.seconds for answer in self.pool.answers.values()]
        found = []
        for voter in self.samples.running:
            slowest = lengths.late_after_s(kind, voter.model or "") or patience.late_s(others)
            times = slowest, patience.timeout_s(slowest)
            found.append((voter, self.samples.seconds(voter), times))
        return found

    async def _count(self, ended: Sequence[VoterResult]) -> VoteCount:
        for voter, result in ended:
            if isinstance(result, StepResult):
                self.pool.add(voter, result)
            else:
                self._first_error = self._first_error or result
                self.report.add_failure(voter, result)
        count = self.decision.with_leader(await self.pool.count())
        await self.report.add_count(count, self.pool, self.samples.pending)
        return count

    async def _with_unclear(self, count: VoteCount) -> VoteCount:
        """The count with unclear answers read by a model, where they could turn the vote."""
        weights = sum(voter.weight for voter in self.pool.unclear)
        leader, *others = [group.weight for group in count.groups] or [0.0]
        if not self.pool.unclear or leader - max(others, default=0.0) > weights:
            return count
        if not await self.pool.extract(count.kind):
            return count
        return self.decision.with_leader(await self.pool.count())

    def _ends_early(self, count: VoteCount) -> bool:
        pending = self.samples.pending
        if pending and all(voter.number in self._timed_out for voter in pending):
            return True
        if not self.rules.early or (self._audited and not self._are_late(pending)):
            return False
        return self.decision.is_over(count, pending)

    def _are_late(self, pending: Sequence[Voter]) -> bool:
        return self._panel is not None and all(voter.number in self._panel.late for voter in pending)

    def _may_stream(self, count: VoteCount) -> bool:
        """Whether the leading answer may be streamed now. A text that a program reads cannot be corrected, so
        it waits for the end."""
        pending = self.samples.pending
        if self._waits_for_end or not pending:
            return False
        if len(pending) == 1 and pending == self.samples.running:
            return True
        return self.decision.outlook(count, pending).probability >= self.rules.stream_at
