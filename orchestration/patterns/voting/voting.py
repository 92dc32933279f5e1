"""A vote: voters answer the same question, and their consensus is the answer as soon as it is likely."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from orchestration.errors import OrchestraError
from orchestration.patterns.base import Part, StepResult
from orchestration.patterns.consensus import AnswerKind, VoteCount, asked_kind
from orchestration.patterns.run_context import COORDINATOR, RunContext
from orchestration.patterns.voting.answer_pool import AnswerPool
from orchestration.patterns.voting.decision import Decision, PanelDecision, SampleDecision
from orchestration.patterns.voting.report import VoteReporter
from orchestration.patterns.voting.sample_pool import Heard, SamplePool
from orchestration.patterns.voting.streamer import VoteStreamer
from orchestration.patterns.voting.voters import Voter, instructed, one_model

SLOW_FACTOR, SLOW_LEAST_S, SLOW_ALONE_S = 5.0, 5.0, 60.0
"""A voter of whose time nothing is known is late after five times the seconds of the others, and five; where
none has answered, after a minute."""
LOST_FACTOR, LOST_LEAST_S = 4.0, 30.0
"""A voter that takes four times as long as a late one, and half a minute, is not waited for any more, even
where its vote would decide."""
_JSON = re.compile(r"\bJSON\b|```json", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteRules:
    """Of a vote. It ends early where the leader stays ahead with a probability of `confidence`; its answer is
    streamed from a probability of `likely` on, and at the latest when one voter alone is still out, so that
    the slowest is never waited for with nothing said. With `cascade` voters are asked only while it is
    open."""

    kind: AnswerKind = AnswerKind.AUTO
    confidence: float = 0.95
    likely: float = 0.9
    early: bool = True
    cascade: bool = True
    alike: float = 0.8
    at_once: int = 16
    think: bool = False
    synthesis: bool = False


class Voting:
    """Of one run; `title` names its part of the report."""

    def __init__(self, context: RunContext, voters: Sequence[Voter], rules: VoteRules, title: str) -> None:
        """Raises `InvalidRequest` when nothing is asked."""
        self.context = context
        self.rules = rules
        self.pool = AnswerPool(context, rules.kind, rules.alike)
        samples = one_model([voter.model for voter in voters])
        order = sorted(voters, key=lambda voter: (-voter.weight, voter.number))
        panel = PanelDecision(context.trust, self.pool, rules.confidence, order)
        self.decision: Decision = SampleDecision(rules.confidence) if samples else panel
        self._panel = None if samples else panel
        self.report = VoteReporter(context, title, voters, self.decision)
        self.streamer = VoteStreamer(context, synthesis=rules.synthesis)
        self.messages = context.run.messages
        if context.run.guide is None:
            asked = rules.kind if rules.kind is not AnswerKind.AUTO else asked_kind(self.pool.question)
            self.messages = instructed(self.messages, asked, think=rules.think, small=context.is_small())
        self.asked = SamplePool(order, self._speak, at_once=rules.at_once, affords=self._affords)
        self._first_error: OrchestraError | None = None
        self._lost: dict[int, float] = {}
        """Voters that are not waited for any more, with the seconds that they took."""
        self._late: set[int] = set()
        """Voters that take longer than they ever do."""
        self._holds = context.run.guide is not None or any(
            _JSON.search(message.content) for message in context.run.messages if message.role != "assistant"
        )
        """Whether the caller reads the text by a program, so that none may be streamed that is corrected."""
        models = [voter.model or "" for voter in voters]
        self._audited = rules.early and not samples and context.trust.audits(models)
        """Whether all are heard, whatever is known."""
        self._at_once = samples or self._audited or not (rules.early and rules.cascade)
        """Whether all are asked at once."""

    async def perform(self) -> AsyncGenerator[Part | StepResult, None]:
        """The answer, and a correction where it was streamed too soon. Raises the first error when no voter
        answers."""
        self.context.budget.keeps = self.rules.synthesis
        count = VoteCount(AnswerKind.TEXT, ())
        async with self.asked:
            while True:
                self._mark_late()
                if self.pool.answers and self._ends_early(count):
                    break
                self._begin(count)
                if not self.asked.at_work:
                    break
                heard = await self.asked.heard(self._patience_s())
                if not heard:
                    continue
                count = await self._count(heard)
                if self._is_likely(count) and not self._ends_early(count):
                    async with aclosing(self.streamer.first(count, self.pool.answers)) as parts:
                        async for part in parts:
                            yield part
        for voter in self.asked.stopped:
            if voter.number in self._lost:
                took = self._lost[voter.number]
                await self.context.warn(f"went on without {voter}: no answer after {took:.0f} s")
        if not self.pool.answers:
            assert self._first_error is not None
            raise self._first_error
        count = await self._with_unread(count)
        spoiled = count.leader is None
        if spoiled:
            count = await self.pool.of_spoiled()
        count = self.streamer.settled(count)
        await self.report.close(count, self.pool, self.asked, spoiled=spoiled)
        async with aclosing(self.streamer.last(count, self.pool.answers)) as items:
            async for item in items:
                yield item

    async def _speak(self, voter: Voter) -> StepResult:
        def heard(part: Part) -> None:
            self.report.written[voter.number] = self.report.written.get(voter.number, 0) + part.tokens

        return await self.context.ask(
            COORDINATOR,
            self.messages,
            name=voter.name,
            sampling=voter.sampling,
            guide=self.context.run.guide,
            model=voter.model,
            heard=heard,
        )

    def _affords(self, voters: int) -> bool:
        """Whether so many may write as much as they may within what is left of the tokens. One after another,
        more of them come to speak, since what one leaves is the next one's."""
        most = self.context.run.sampling.max_tokens or self.context.limits.final_tokens
        return self.context.budget.affords(voters, self.messages, COORDINATOR, most)

    def _begin(self, count: VoteCount) -> None:
        """Let those begin who are wanted, and anybody rather than nobody."""
        silent = self.asked.silent
        if not silent:
            return
        wanted = len(silent) if self._at_once else self.decision.wanted(count, self.asked.at_work, silent)
        follows = bool(self.pool.answers) and not self._at_once
        before = list(silent)
        self.asked.begin(wanted if wanted or self.asked.at_work else 1)
        if follows:
            began = before[: len(before) - len(self.asked.silent)]
            self.decision.followed |= {voter.number for voter in began}

    def _mark_late(self) -> None:
        """Note who takes longer than it ever does, so that others are asked in its place."""
        timed = self._timed()
        self._lost = {voter.number: took for voter, took, (_, lost) in timed if took >= lost}
        self._late = {voter.number for voter, took, (late, _) in timed if took >= late}
        if self._panel is not None:
            self._panel.late = self._late

    def _patience_s(self) -> float | None:
        """How long to wait until the next is late or lost; None where nobody is that is not known to be.
        Time has passed since that was noted: who became so meanwhile is not waited for."""
        waits = [
            max(0.0, at - took)
            for voter, took, times in self._timed()
            for at, known in zip(times, (self._late, self._lost), strict=True)
            if voter.number not in known
        ]
        return min(waits, default=None)

    def _timed(self) -> list[tuple[Voter, float, tuple[float, float]]]:
        """Of each voter at work the seconds that it has taken, and after which it is late, and lost."""
        if not self.rules.early:
            return []
        kind, lengths = self.context.question_kind, self.context.lengths
        found = []
        for voter in self.asked.at_work:
            slowest = lengths.slowest_s(kind, voter.model or "") or self._slow_here_s()
            times = slowest, max(LOST_LEAST_S, LOST_FACTOR * slowest)
            found.append((voter, self.asked.seconds(voter), times))
        return found

    def _slow_here_s(self) -> float:
        """Seconds after which a voter is late beside those who have answered."""
        seconds = [answer.seconds for answer in self.pool.answers.values()]
        return SLOW_FACTOR * max(seconds) + SLOW_LEAST_S if seconds else SLOW_ALONE_S

    async def _count(self, heard: Sequence[Heard]) -> VoteCount:
        for voter, said in heard:
            if isinstance(said, StepResult):
                self.pool.add(voter, said)
            else:
                self._first_error = self._first_error or said
                self.report.failed(voter, said)
        count = self.decision.leads(await self.pool.count())
        await self.report.counted(count, self.pool, self.asked.out)
        return count

    async def _with_unread(self, count: VoteCount) -> VoteCount:
        """With the answers that only a model can read, where they could turn the vote."""
        weights = sum(voter.weight for voter in self.pool.unread)
        leader, *others = [group.weight for group in count.groups] or [0.0]
        if not self.pool.unread or leader - max(others, default=0.0) > weights:
            return count
        if not await self.pool.extract(count.kind):
            return count
        return self.decision.leads(await self.pool.count())

    def _ends_early(self, count: VoteCount) -> bool:
        out = self.asked.out
        if out and all(voter.number in self._lost for voter in out):
            return True
        if not self.rules.early or (self._audited and not self._are_late(out)):
            return False
        return self.decision.is_over(count, out)

    def _are_late(self, out: Sequence[Voter]) -> bool:
        return self._panel is not None and all(voter.number in self._panel.late for voter in out)

    def _is_likely(self, count: VoteCount) -> bool:
        """A text that a program reads cannot be corrected, so it waits for the end."""
        out = self.asked.out
        if self._holds or not out:
            return False
        if len(out) == 1 and out == self.asked.at_work:
            return True
        return self.decision.outlook(count, out).probability >= self.rules.likely
