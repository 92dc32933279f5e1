"""Compares a pattern with the members of its panel, from recorded answers and the results of the pattern.

Pure: one reader has already extracted the answers from all texts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations
from math import log
from typing import Any

from pydantic import BaseModel, ConfigDict

from orchestration.evaluation.statistics import Difference, Interval, difference, mean_interval


class VoterRow(BaseModel):
    """One voter, from the report of a vote."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    voice: int
    model: str = ""
    agrees: bool = False
    weight: float = 1.0
    tokens: int | None = None
    stopped: bool = False
    error: str | None = None

    @property
    def is_complete(self) -> bool:
        return self.tokens is not None and not self.stopped and self.error is None


class DissentRow(BaseModel):
    """A group of voters whose answer was not followed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    voices: tuple[int, ...] = ()


class VoteReportRow(BaseModel):
    """The fields of a vote report that are used here."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: str = ""
    voices: tuple[VoterRow, ...] = ()
    dissent: tuple[DissentRow, ...] = ()
    stopped_early: bool = False
    calls_cut: int = 0
    tokens_saved: int = 0

    @classmethod
    def from_report(cls, report: Mapping[str, Any]) -> VoteReportRow | None:
        """Find the vote in the report of a run of any pattern. None if there was none."""
        for section in report.values():
            if isinstance(section, Mapping) and "tokens_saved" in section and "voices" in section:
                return cls.model_validate(section)
        return None

    @property
    def groups(self) -> dict[int, int]:
        """The group number of each counted voter; 0 is the group whose answer was followed."""
        found = {voter.voice: 0 for voter in self.voices if voter.agrees}
        for number, dissent in enumerate(self.dissent, 1):
            found |= dict.fromkeys(dissent.voices, number)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedQuestion:
    """One question that was replayed for a pattern. The mappings are by member of the panel."""

    question: str
    gold: str
    """The right answer."""
    answer: str | None
    """The answer of the pattern. None if it failed or its text cannot be read."""
    readings: Mapping[str, str | None]
    """What each recorded answer says. None if it cannot be read."""
    shares: Mapping[str, float]
    """The share of right answers among the samples of each member."""
    full: Mapping[str, int]
    """The tokens of each recorded answer."""
    written: Mapping[str, int]
    """The tokens that each member gave out for this question, stopped answers included."""
    reported: int = 0
    """The completion tokens that the usage of the answer reports."""
    vote: VoteReportRow | None = None
    chosen: str = ""
    """The pattern that `auto` chose, with the model if one answers alone."""
    failed: str = ""
    """The error code. '' if the question was answered."""

    @property
    def right(self) -> bool:
        return self.answer == self.gold


def same_answer(read: str, scored: str) -> bool:
    """Whether two readers read the same; `scored` may have rounded a number to the digits that it shows."""
    if read == scored:
        return True
    try:
        one, other = Fraction(read), Fraction(scored)
    except (ValueError, ZeroDivisionError):
        return False
    digits = len(scored.partition(".")[2])
    return one == other or (digits > 0 and abs(one - other) <= Fraction(1, 2 * 10**digits))


def majority(readings: Mapping[str, str | None], weights: Mapping[str, float] | None = None) -> str | None:
    """Return the answer with the most votes; among equals that of the member that is first by name."""
    votes: dict[str, float] = {}
    for member in sorted(readings):
        answer = readings[member]
        if answer is not None:
            votes[answer] = votes.get(answer, 0.0) + (1.0 if weights is None else weights.get(member, 1.0))
    return max(votes, key=lambda answer: round(votes[answer], 9)) if votes else None


def log_odds(questions: Sequence[ReplayedQuestion]) -> dict[str, float]:
    """Return the log-odds of each member from how often it was right (Laplace's rule); at least slightly
    above 0."""
    weights = {}
    for member in questions[0].shares if questions else ():
        right = sum(each.shares[member] for each in questions)
        weights[member] = max(log((right + 1) / (len(questions) - right + 1)), 1e-6)
    return weights


@dataclass(slots=True)
class TokenFigures:
    """Token counts over all questions."""

    full: int = 0
    """The tokens if every member wrote its full answer."""
    written: int = 0
    """The tokens that the members gave out."""
    reported: int = 0
    """The completion tokens that the usage of the answers reports."""
    saved: int = 0
    """The tokens of their full answers that the members of votes did not write."""
    saved_reported: int = 0
    """The savings that the reports of the votes claim."""

    @property
    def unwritten_share(self) -> float:
        """The share of `full` that was not written."""
        return 1 - self.written / self.full if self.full else 0.0

    @property
    def saved_error(self) -> float | None:
        """The relative error of `saved_reported`. None if nothing was saved."""
        return self.saved_reported / self.saved - 1 if self.saved else None


@dataclass(slots=True)
class EarlyStopFigures:
    """Counts of votes that stopped early, compared with the full vote of the recorded answers by the same
    weights."""

    votes: int = 0
    """All votes."""
    stopped: int = 0
    """Votes that stopped early."""
    right: int = 0
    """Stopped votes that were right."""
    full_right: int = 0
    """Stopped votes for which the full vote would have been right."""
    changed: int = 0
    """Stopped votes for which the full vote would have been right instead of wrong, or wrong instead of
    right."""


@dataclass(slots=True)
class ReadingFigures:
    """How well votes read complete answers, compared with the scorer."""

    counted: int = 0
    """Readable answers that the vote counted."""
    counted_unreadable: int = 0
    """Unreadable answers that the vote counted."""
    not_counted: int = 0
    """Readable answers that the vote did not count."""
    not_counted_unreadable: int = 0
    pairs: Counter[tuple[bool, bool]] = field(default_factory=Counter)
    """Pairs of voters of a question, by (equal for the scorer, equal for the vote)."""
    examples: list[dict[str, Any]] = field(default_factory=list)
    """The first `MAX_EXAMPLES` voters and pairs that were read wrong."""

    @property
    def equal_called_different(self) -> float | None:
        """The share of equal pairs that the vote called different. None without equal pairs."""
        return _share(self.pairs[True, False], self.pairs[True, True])

    @property
    def different_called_equal(self) -> float | None:
        """The share of different pairs that the vote called equal. None without different pairs."""
        return _share(self.pairs[False, True], self.pairs[False, False])

    @property
    def not_counted_share(self) -> float | None:
        """The share of readable answers that the vote did not count."""
        return _share(self.not_counted, self.counted)


MAX_EXAMPLES = 200
"""Examples that a report has at most."""


def _share(some: int, others: int) -> float | None:
    return some / (some + others) if some + others else None


def token_figures(questions: Sequence[ReplayedQuestion]) -> TokenFigures:
    found = TokenFigures()
    for each in questions:
        if each.failed:
            continue
        found.full += sum(each.full.values())
        found.written += sum(each.written.values())
        found.reported += each.reported
        if each.vote is not None:
            found.saved += sum(max(0, each.full[m] - each.written.get(m, 0)) for m in _members(each))
            found.saved_reported += each.vote.tokens_saved
    return found


def early_stop_figures(questions: Sequence[ReplayedQuestion]) -> EarlyStopFigures:
    found, latest = EarlyStopFigures(), dict[str, float]()
    for each in questions:
        if each.vote is None:
            continue
        latest |= {voter.model: voter.weight for voter in each.vote.voices if voter.model}
        found.votes += 1
        if not each.vote.stopped_early:
            continue
        voted = _members(each)
        if voted <= each.readings.keys():  # otherwise they are samples of one model with its weight
            readings = {member: each.readings[member] for member in voted}
        else:
            readings = dict(each.readings)
        full = majority(readings, latest) == each.gold
        found.stopped += 1
        found.right += each.right
        found.full_right += full
        found.changed += full != each.right
    return found


def reading_figures(questions: Sequence[ReplayedQuestion]) -> ReadingFigures:
    found = ReadingFigures()
    for each in questions:
        if each.vote is None or len(each.readings) < 2:
            continue
        groups = each.vote.groups
        models = {v.voice: v.model for v in each.vote.voices if v.is_complete and v.model in each.readings}
        for number, model in models.items():
            truth = each.readings[model]
            if number in groups:
                found.counted += truth is not None
                found.counted_unreadable += truth is None
            else:
                found.not_counted += truth is not None
                found.not_counted_unreadable += truth is None
                if truth is not None:
                    _example(found, "not counted", each, {model: truth})
        for one, other, equal in _pairs(each, models, groups):
            together = groups[one] == groups[other]
            found.pairs[equal, together] += 1
            if equal != together:
                answers = {models[number]: each.readings[models[number]] for number in (one, other)}
                _example(
                    found, "equal called different" if equal else "different called equal", each, answers
                )
    return found


def _pairs(
    each: ReplayedQuestion, models: Mapping[int, str], groups: Mapping[int, int]
) -> Iterator[tuple[int, int, bool]]:
    """Yield the pairs of counted, readable voters with different models, and whether their answers are
    equal."""
    known = [v for v in sorted(models) if v in groups and each.readings[models[v]] is not None]
    for one, other in combinations(known, 2):
        if models[one] != models[other]:
            yield one, other, each.readings[models[one]] == each.readings[models[other]]


def _example(
    found: ReadingFigures, what: str, each: ReplayedQuestion, answers: Mapping[str, str | None]
) -> None:
    if len(found.examples) < MAX_EXAMPLES:
        found.examples.append({"what": what, "question": each.question, "answers": dict(answers)})


def _members(each: ReplayedQuestion) -> set[str]:
    """Return the members of the vote: those in the report, or all if more calls were cut than it names."""
    assert each.vote is not None
    named = {voter.model for voter in each.vote.voices if voter.model in each.full}
    incomplete = sum(not voter.is_complete for voter in each.vote.voices)
    return set(each.full) if each.vote.calls_cut > incomplete else named


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfShares:
    """The results of a pattern on some of the questions, and of its panel on the same ones."""

    name: str
    """Which questions: "all", "first" or "second"."""
    questions: int
    failed: int
    pattern: Interval
    """The share of right answers of the pattern."""
    members: Mapping[str, Interval]
    """The share of right answers of each member."""
    best: str
    """The member with the most right answers on these questions."""
    majority: Interval
    """The share of right answers of an unweighted vote of the recorded answers."""
    oracle: Interval
    """The share of questions that at least one member answers right."""
    weighted: Interval | None
    """The share of a vote weighted by `log_odds` of the questions before these. None if there are none."""
    against_best: Difference
    against_majority: Difference
    lost_to_majority: Sequence[str]
    """The first `MAX_EXAMPLES` questions that the majority gets right and the pattern does not."""
    tokens: TokenFigures
    early_stops: EarlyStopFigures
    readings: ReadingFigures


def half_shares(
    name: str,
    questions: Sequence[ReplayedQuestion],
    before: Sequence[ReplayedQuestion] = (),
    *,
    seed: int = 0,
) -> HalfShares:
    """Compare a pattern with its panel on `questions`. `before` are the earlier questions, for
    weights. Raises `ValueError` without questions."""
    ours = [float(each.right) for each in questions]
    plain = [float(majority(each.readings) == each.gold) for each in questions]
    shares = {member: [each.shares[member] for each in questions] for member in sorted(questions[0].shares)}
    best = max(shares, key=lambda member: sum(shares[member]))
    weights = log_odds(before)
    weighted = [float(majority(each.readings, weights) == each.gold) for each in questions] if weights else []
    return HalfShares(
        name=name,
        questions=len(questions),
        failed=sum(bool(each.failed) for each in questions),
        pattern=mean_interval(ours, seed=seed),
        members={member: mean_interval(values, seed=seed) for member, values in shares.items()},
        best=best,
        majority=mean_interval(plain, seed=seed),
        oracle=mean_interval([float(each.gold in each.readings.values()) for each in questions], seed=seed),
        weighted=mean_interval(weighted, seed=seed) if weighted else None,
        against_best=difference(ours, shares[best], seed=seed),
        against_majority=difference(ours, plain, seed=seed),
        lost_to_majority=[
            each.question for each, right in zip(questions, plain, strict=True) if right and not each.right
        ][:MAX_EXAMPLES],
        tokens=token_figures(questions),
        early_stops=early_stop_figures(questions),
        readings=reading_figures(questions),
    )
