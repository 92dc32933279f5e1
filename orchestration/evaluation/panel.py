"""How a panel of models answers beside its members, from recorded answers and what a pattern made of them.

Pure: what an answer says has been read out of it already, by one reader for all.
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
    """One voice, as the report of a vote has it."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    voice: int
    model: str = ""
    agrees: bool = False
    weight: float = 1.0
    tokens: int | None = None
    stopped: bool = False
    error: str | None = None

    @property
    def is_whole(self) -> bool:
        return self.tokens is not None and not self.stopped and self.error is None


class DissentRow(BaseModel):
    """A party other than the one that was followed."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    voices: tuple[int, ...] = ()


class VoteReportRow(BaseModel):
    """What is used of the report of a vote."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: str = ""
    voices: tuple[VoterRow, ...] = ()
    dissent: tuple[DissentRow, ...] = ()
    stopped_early: bool = False
    calls_cut: int = 0
    tokens_saved: int = 0

    @classmethod
    def found(cls, report: Mapping[str, Any]) -> VoteReportRow | None:
        """That of the vote of a run, whichever pattern held it; None where none did."""
        for said in report.values():
            if isinstance(said, Mapping) and "tokens_saved" in said and "voices" in said:
                return cls.model_validate(said)
        return None

    @property
    def groups(self) -> dict[int, int]:
        """Of each voice that was counted the number of its party; 0 is the one that was followed."""
        found = {voice.voice: 0 for voice in self.voices if voice.agrees}
        for number, dissent in enumerate(self.dissent, 1):
            found |= dict.fromkeys(dissent.voices, number)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayedQuestion:
    """One question that a pattern was asked.

    `answer` is what its text says, None where it failed or says nothing that can be read. `readings` are what
    the members' recorded answers say, `full` their tokens, `shares` the share of each member's samples that
    is right; all by member. `written` are the tokens that each member gave out for this question, those of
    stopped answers included, and `reported` those that the answer's usage tells.
    """

    question: str
    gold: str
    answer: str | None
    readings: Mapping[str, str | None]
    shares: Mapping[str, float]
    full: Mapping[str, int]
    written: Mapping[str, int]
    reported: int = 0
    vote: VoteReportRow | None = None
    chosen: str = ""
    """The pattern that `auto` took, and the model of a single one."""
    failed: str = ""
    """The code of an error."""

    @property
    def right(self) -> bool:
        return self.answer == self.gold


def same_answer(read: str, scored: str) -> bool:
    """Whether two readers read the same; the second may have rounded a number to the digits that it has."""
    if read == scored:
        return True
    try:
        one, other = Fraction(read), Fraction(scored)
    except (ValueError, ZeroDivisionError):
        return False
    digits = len(scored.partition(".")[2])
    return one == other or (digits > 0 and abs(one - other) <= Fraction(1, 2 * 10**digits))


def majority(readings: Mapping[str, str | None], weights: Mapping[str, float] | None = None) -> str | None:
    """The answer with the most votes; of equals the one of the member that is first by name."""
    votes: dict[str, float] = {}
    for member in sorted(readings):
        said = readings[member]
        if said is not None:
            votes[said] = votes.get(said, 0.0) + (1.0 if weights is None else weights.get(member, 1.0))
    return max(votes, key=lambda said: round(votes[said], 9)) if votes else None


def log_odds(asked: Sequence[ReplayedQuestion]) -> dict[str, float]:
    """Weights from how often each member was right, as Laplace counts; none below 0."""
    weights = {}
    for member in asked[0].shares if asked else ():
        right = sum(each.shares[member] for each in asked)
        weights[member] = max(log((right + 1) / (len(asked) - right + 1)), 1e-6)
    return weights


@dataclass(slots=True)
class TokenFigures:
    """Of all questions: `full` would be written if every member answered to its end, `written` were given out
    by the members, `reported` are those of the answers' usage; `saved` is what the members of each vote did
    not write of their answers, `saved_reported` what the reports say of it."""

    full: int = 0
    written: int = 0
    reported: int = 0
    saved: int = 0
    saved_reported: int = 0

    @property
    def unwritten_share(self) -> float:
        """The share of `full`."""
        return 1 - self.written / self.full if self.full else 0.0

    @property
    def saved_error(self) -> float | None:
        """By how much of the truth `saved_reported` misses it; None where nothing was saved."""
        return self.saved_reported / self.saved - 1 if self.saved else None


@dataclass(slots=True)
class EarlyStopFigures:
    """Votes that ended before all had spoken: how often they were right, and how often the whole vote of the
    recorded answers by the same weights would have been. `changed` are those where the two differ."""

    votes: int = 0
    stopped: int = 0
    right: int = 0
    full_right: int = 0
    changed: int = 0


@dataclass(slots=True)
class ReadingFigures:
    """Of voices that spoke to their end: whether the vote counted them, against whether they can be read.

    `pairs` counts pairs of voices of a question by (equal in truth, equal in the vote)."""

    counted: int = 0
    counted_unreadable: int = 0
    not_counted: int = 0
    not_counted_unreadable: int = 0
    pairs: Counter[tuple[bool, bool]] = field(default_factory=Counter)
    examples: list[dict[str, Any]] = field(default_factory=list)
    """The first `MAX_EXAMPLES` voices and pairs that were read wrong."""

    @property
    def equal_called_different(self) -> float | None:
        """The share of equal pairs that were called different; None without equal pairs."""
        return _share(self.pairs[True, False], self.pairs[True, True])

    @property
    def different_called_equal(self) -> float | None:
        """The share of different pairs that were called equal; None without different pairs."""
        return _share(self.pairs[False, True], self.pairs[False, False])

    @property
    def not_counted_share(self) -> float | None:
        """The share of readable voices that were not counted."""
        return _share(self.not_counted, self.counted)


MAX_EXAMPLES = 200


def _share(some: int, others: int) -> float | None:
    return some / (some + others) if some + others else None


def token_figures(asked: Sequence[ReplayedQuestion]) -> TokenFigures:
    found = TokenFigures()
    for each in asked:
        if each.failed:
            continue
        found.full += sum(each.full.values())
        found.written += sum(each.written.values())
        found.reported += each.reported
        if each.vote is not None:
            found.saved += sum(max(0, each.full[m] - each.written.get(m, 0)) for m in _members(each))
            found.saved_reported += each.vote.tokens_saved
    return found


def early_stop_figures(asked: Sequence[ReplayedQuestion]) -> EarlyStopFigures:
    found, latest = EarlyStopFigures(), dict[str, float]()
    for each in asked:
        if each.vote is None:
            continue
        latest |= {voice.model: voice.weight for voice in each.vote.voices if voice.model}
        found.votes += 1
        if not each.vote.stopped_early:
            continue
        voted = _members(each)
        if voted <= each.readings.keys():  # else they are samples of one model, which have its weight
            readings = {member: each.readings[member] for member in voted}
        else:
            readings = dict(each.readings)
        full = majority(readings, latest) == each.gold
        found.stopped += 1
        found.right += each.right
        found.full_right += full
        found.changed += full != each.right
    return found


def reading_figures(asked: Sequence[ReplayedQuestion]) -> ReadingFigures:
    found = ReadingFigures()
    for each in asked:
        if each.vote is None or len(each.readings) < 2:
            continue
        groups = each.vote.groups
        heard = {v.voice: v.model for v in each.vote.voices if v.is_whole and v.model in each.readings}
        for voice, model in heard.items():
            truth = each.readings[model]
            if voice in groups:
                found.counted += truth is not None
                found.counted_unreadable += truth is None
            else:
                found.not_counted += truth is not None
                found.not_counted_unreadable += truth is None
                if truth is not None:
                    _example(found, "not counted", each, {model: truth})
        for one, other, equal in _pairs(each, heard, groups):
            together = groups[one] == groups[other]
            found.pairs[equal, together] += 1
            if equal != together:
                said = {heard[voice]: each.readings[heard[voice]] for voice in (one, other)}
                _example(found, "equal called different" if equal else "different called equal", each, said)
    return found


def _pairs(
    each: ReplayedQuestion, heard: Mapping[int, str], groups: Mapping[int, int]
) -> Iterator[tuple[int, int, bool]]:
    """Two voices that were counted and can be read, and whether they say the same."""
    known = [v for v in sorted(heard) if v in groups and each.readings[heard[v]] is not None]
    for one, other in combinations(known, 2):
        if heard[one] != heard[other]:
            yield one, other, each.readings[heard[one]] == each.readings[heard[other]]


def _example(
    found: ReadingFigures, what: str, each: ReplayedQuestion, said: Mapping[str, str | None]
) -> None:
    if len(found.examples) < MAX_EXAMPLES:
        found.examples.append({"what": what, "question": each.question, "answers": dict(said)})


def _members(each: ReplayedQuestion) -> set[str]:
    """Who was to vote: whom the report names, or all where more calls were cut than it names."""
    assert each.vote is not None
    named = {voice.model for voice in each.vote.voices if voice.model in each.full}
    unheard = sum(not voice.is_whole for voice in each.vote.voices)
    return set(each.full) if each.vote.calls_cut > unheard else named


@dataclass(frozen=True, slots=True, kw_only=True)
class HalfShares:
    """Shares of right answers to some of the questions. `weighted` is a vote by `log_odds` of the questions
    before these, None where there are none. `best` is the member with the most right answers here."""

    name: str
    questions: int
    failed: int
    pattern: Interval
    members: Mapping[str, Interval]
    best: str
    majority: Interval
    oracle: Interval
    weighted: Interval | None
    against_best: Difference
    against_majority: Difference
    lost_to_majority: Sequence[str]
    """Questions that the majority gets right and the pattern does not, the first `MAX_EXAMPLES`."""
    tokens: TokenFigures
    early_stops: EarlyStopFigures
    readings: ReadingFigures


def half_shares(
    name: str, asked: Sequence[ReplayedQuestion], before: Sequence[ReplayedQuestion] = (), *, seed: int = 0
) -> HalfShares:
    """Raises `ValueError` without questions."""
    ours = [float(each.right) for each in asked]
    plain = [float(majority(each.readings) == each.gold) for each in asked]
    shares = {member: [each.shares[member] for each in asked] for member in sorted(asked[0].shares)}
    best = max(shares, key=lambda member: sum(shares[member]))
    weights = log_odds(before)
    weighted = [float(majority(each.readings, weights) == each.gold) for each in asked] if weights else []
    return HalfShares(
        name=name,
        questions=len(asked),
        failed=sum(bool(each.failed) for each in asked),
        pattern=mean_interval(ours, seed=seed),
        members={member: mean_interval(said, seed=seed) for member, said in shares.items()},
        best=best,
        majority=mean_interval(plain, seed=seed),
        oracle=mean_interval([float(each.gold in each.readings.values()) for each in asked], seed=seed),
        weighted=mean_interval(weighted, seed=seed) if weighted else None,
        against_best=difference(ours, shares[best], seed=seed),
        against_majority=difference(ours, plain, seed=seed),
        lost_to_majority=[
            each.question for each, was in zip(asked, plain, strict=True) if was and not each.right
        ][:MAX_EXAMPLES],
        tokens=token_figures(asked),
        early_stops=early_stop_figures(asked),
        readings=reading_figures(asked),
    )
