"""The report of a vote: events for observers, notes for the caller, JSON for programs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestration.errors import BudgetExceeded, OrchestraError
from orchestration.patterns.clipping import clip, truncate
from orchestration.patterns.consensus import AnswerGroup, AnswerKind, VoteCount
from orchestration.patterns.consensus.final import final_answer
from orchestration.patterns.consensus.garbage import loops
from orchestration.patterns.consensus.refusal import is_refusal
from orchestration.patterns.run_context import RunContext
from orchestration.patterns.voting.answer_pool import AnswerPool
from orchestration.patterns.voting.decision import Decision
from orchestration.patterns.voting.sample_pool import SamplePool
from orchestration.patterns.voting.voters import Voter
from orchestration.trust.lengths import AnswerLength

REPORTED_TOKENS = 100
"""Tokens of each answer in the report; the run's steps hold it whole."""
QUOTED_TOKENS = 20
"""Tokens of each answer that a note quotes."""
QUOTED_CHARS = 2_000
"""Characters of an answer that are searched for a quotation."""
_LACKS = {
    AnswerKind.NUMBER: "names no number",
    AnswerKind.MATH: "names no value",
    AnswerKind.CHOICE: "takes none of the options",
    AnswerKind.CODE: "holds no program",
    AnswerKind.EXACT: "says nothing that can be compared",
    AnswerKind.TEXT: "says nothing",
}


@dataclass(slots=True)
class VoteReporter:
    """Reports one vote; `title` names its part of the run's report."""

    context: RunContext
    title: str
    voters: Sequence[Voter]
    decision: Decision
    failures: dict[int, OrchestraError] = field(default_factory=dict)
    tokens_written: Counter[int] = field(default_factory=Counter)
    """The tokens that each voter has written so far."""
    probability: float = 0.0
    """The probability that the leader keeps its lead, as of the latest count."""

    def add_failure(self, voter: Voter, error: OrchestraError) -> None:
        self.failures[voter.number] = error

    async def add_count(self, count: VoteCount, pool: AnswerPool, pending: Sequence[Voter]) -> None:
        """Publish a new count."""
        self.probability = self.decision.outlook(count, pending).probability
        await self.context.event(
            "vote",
            answer_kind=count.kind,
            voters=len(self.voters),
            votes=len(pool.answers),
            groups=[list(group.voters) for group in count.groups],
            agreement=round(count.agreement, 3),
            lead_probability=round(self.probability, 3),
        )
        if count.leader is not None:
            lasting = f"; that stays the answer with probability {self.probability:.2f}" if pending else ""
            await self.context.progress(
                f"vote: {len(count.leader.voters)} of {len(pool.answers)} voices agree, "
                f"{len(pending)} still to come{lasting}"
            )

    async def close(
        self, count: VoteCount, pool: AnswerPool, samples: SamplePool, *, all_invalid: bool
    ) -> None:
        """Write the report at the end of the vote. `all_invalid` says that no answer was valid."""
        await pool.warn_of_word_comparison(count)
        await self._note(count, pool, all_invalid=all_invalid)
        self._learn_lengths(pool)
        self.context.report[self.title] = self._report(count, pool, samples)

    async def _note(self, count: VoteCount, pool: AnswerPool, *, all_invalid: bool) -> None:
        by_number = {voter.number: voter for voter in self.voters}
        for number, error in self.failures.items():
            if not isinstance(error, BudgetExceeded):  # the context warns of it
                await self.context.warn(f"went on without {by_number[number]}: {error.message}")
        lacks = _LACKS.get(count.kind, _LACKS[AnswerKind.EXACT])
        if self.context.run.guide is not None:
            lacks = "does not meet the form that is asked for"
        if not any(answer.text.strip() for answer in pool.answers.values()):
            await self.context.warn("no voice said anything: the answer is empty")
            return
        if all_invalid:
            await self.context.warn("no voice's answer could be counted; what most of them say was taken")
        for number in () if all_invalid else count.invalid:
            why = lacks
            if count.kind in (AnswerKind.TEXT, AnswerKind.EXACT) and is_refusal(pool.answers[number].text):
                why = "refuses"
            elif count.kind is AnswerKind.TEXT and loops(pool.answers[number].text):
                why = "repeats itself"
            await self.context.warn(f"not counted: the answer of {by_number[number]} {why}")
        for numbers in self._copies(pool):
            await self.context.warn(
                f"{_named(numbers)} are copies of one model, by their names or by how they answer: that they "
                "agree says little"
            )
        counted = sum(len(group.voters) for group in count.groups)
        if counted == 1 and len(pool.answers) + len(self.failures) > 1:
            await self.context.warn("one voice alone could be counted: its answer was compared with no other")
        elif counted > 1 and len(count.groups) == counted:
            best, which = by_number[count.groups[0].representative], ""
            if count.groups[0].weight > count.groups[1].weight:
                which = f"; the answer of {best}, whose vote weighs most, was taken"
            await self.context.warn(f"no two of {counted} voices agree{which}")
        elif len(count.groups) > 1:
            others = "; ".join(f"“{_quoted(count.kind, group, pool)}”" for group in count.groups[1:])
            first, why = count.groups[0], ""
            if first.weight < max(group.weight for group in count.groups):
                why = ", which the most trusted voice is for: it was right more often than votes against it"
            elif len(first.voters) < max(len(group.voters) for group in count.groups):
                why = f", with {count.agreement:.0%} of the weight"
            await self.context.warn(f"{len(first.voters)} of {counted} voices agree{why}; others: {others}")

    def _report(self, count: VoteCount, pool: AnswerPool, samples: SamplePool) -> dict[str, Any]:
        leader = count.groups[0]
        unused = [*samples.stopped, *samples.waiting]
        group_of = {voter: at for at, group in enumerate(count.groups) for voter in group.voters}
        examples = {"examples_passed": round(leader.pass_rate, 3)} if leader.pass_rate is not None else {}
        return examples | {
            "kind": count.kind,
            "answer": pool.answers[leader.representative].text.strip(),
            "agreement": round(count.agreement, 3),
            "voices": [
                self._voter_json(voter, pool, group_of, stopped=voter in unused) for voter in self.voters
            ],
            "dissent": [
                {
                    "answer": clip(pool.answers[group.representative].text, REPORTED_TOKENS),
                    "voices": list(group.voters),
                    "weight": round(group.weight, 3),
                    "value": _value(count.kind, group),
                }
                for group in count.groups[1:]
            ],
            "copies": self._copies(pool),
            "stopped_early": bool(unused),
            "test": {
                "name": self.decision.test,
                "confidence": self.decision.confidence,
                "probability": round(self.probability, 3),
            },
            "calls_cut": len(unused),
            "tokens_saved": self._saved(pool, unused),
        }

    def _voter_json(
        self, voter: Voter, pool: AnswerPool, group_of: dict[int, int], *, stopped: bool
    ) -> dict[str, Any]:
        """One voter as the report has it. `group` numbers the different answers: 0 is the leader's, None
        could not be counted. `followed` says that the voter was asked only because others disagreed."""
        number = voter.number
        report: dict[str, Any] = {
            "voice": number,
            "model": voter.model or "",
            "node": "",
            "answer": "",
            "agrees": False,
            "group": group_of.get(number),
            "followed": number in self.decision.follow_ups,
            "weight": round(voter.weight, 3),
        }
        answer = pool.answers.get(number)
        if answer is not None:
            report |= {
                "model": answer.finish.model,
                "node": answer.finish.node,
                "answer": clip(answer.text, REPORTED_TOKENS),
            }
            report["agrees"] = group_of.get(number) == 0
            report["tokens"] = answer.finish.usage.completion_tokens
        elif number in self.failures:
            report["error"] = self.failures[number].code
        elif stopped:
            report |= {"stopped": True, "tokens": self.tokens_written[number]}
        return report

    def _copies(self, pool: AnswerPool) -> list[list[int]]:
        """The groups of voters that answered under different names of one model."""
        models = dict(zip(pool.answers, pool.models_of([*pool.answers]), strict=True))
        same = [set(names) for names in self.context.trust.distinct([*models.values()]) if len(names) > 1]
        return [sorted(number for number, model in models.items() if model in names) for names in same]

    def _ended(self, pool: AnswerPool) -> dict[str, list[AnswerLength]]:
        """The answers of each model that were written to their end; an empty one says nothing of length or
        time."""
        ended: dict[str, list[AnswerLength]] = {}
        for answer in pool.answers.values():
            if answer.text.strip():
                written = AnswerLength(answer.finish.usage.completion_tokens, answer.seconds)
                ended.setdefault(answer.finish.model, []).append(written)
        return ended

    def _learn_lengths(self, pool: AnswerPool) -> None:
        self.context.facts.lengths.learn(self.context.facts.question_kind, self._ended(pool))

    def _saved(self, pool: AnswerPool, unused: Sequence[Voter]) -> int:
        """The tokens that stopped and unstarted voters would still have written: what their models usually
        write for this kind of question, scaled by the other answers to this one."""
        ended = self._ended(pool)
        total = 0.0
        for voter in unused:
            position = self.tokens_written[voter.number]
            left = self.context.facts.lengths.remaining(
                self.context.facts.question_kind, voter.model or "", ended, position
            )
            limit = voter.sampling.max_tokens
            total += left if limit is None else max(0.0, min(left, limit - position))
        return round(total)


def _named(numbers: Sequence[int]) -> str:
    *first, last = numbers
    return f"voices {', '.join(map(str, first))} and {last}"


def _value(kind: AnswerKind, group: AnswerGroup) -> str | None:
    """The number or option that a group answered; None for longer answers, and for expressions, whose keys
    (`~`) people cannot read."""
    return (
        group.key if kind in (AnswerKind.NUMBER, AnswerKind.CHOICE) and "~" not in (group.key or "") else None
    )


def _quoted(kind: AnswerKind, group: AnswerGroup, pool: AnswerPool) -> str:
    """The answer of a group in few words."""
    text = pool.answers[group.representative].text
    value = _value(kind, group)
    if value is None and kind is not AnswerKind.TEXT:
        value = final_answer(text)
    return truncate(" ".join((value or text)[:QUOTED_CHARS].split()), QUOTED_TOKENS)
