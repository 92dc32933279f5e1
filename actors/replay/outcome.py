"""The result of a replay: the pattern compared with the members of its panel, and what it cost."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from actors.backends.recorded import RecordedQuestion
from actors.evaluation.errors import ResultsStorage
from actors.evaluation.outcome import REPORT
from actors.replay.reader import AnswerScorer, ProductScorer
from actors.replay.runner import ReplayResult
from actors.replay.spec import RecordedSet, ReplaySpec
from orchestration.evaluation.panel import (
    MAX_EXAMPLES,
    HalfShares,
    ReadingFigures,
    ReplayedQuestion,
    VoteReportRow,
    half_shares,
    same_answer,
)
from orchestration.evaluation.statistics import LEVEL


@dataclass(slots=True)
class ReadingComparison:
    """Orchestra's own reading of the recorded answers, compared with a scorer's."""

    scored: int = 0
    """Answers that the scorer reads."""
    read: int = 0
    """How many of these Orchestra reads at all."""
    different: int = 0
    """How many of these Orchestra reads differently."""
    examples: list[dict[str, str]] = field(default_factory=list)
    """The first answers that are read differently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternOutcome:
    """The results of one pattern."""

    pattern: str
    parts: Sequence[HalfShares]
    """All questions, and those before and after the last rated one, or the middle if none was rated."""
    kinds: Mapping[str, int]
    """Votes by kind of answer."""
    chosen: Mapping[str, int]
    """What `auto` chose in the last part."""
    failures: Mapping[str, int]
    """Failed questions by error code."""
    feedback_counted: int
    """Ratings that were counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOutcome:
    """The results of a replay. `reading` is None if Orchestra's own reading is the judge."""

    spec: ReplaySpec
    reader: str
    patterns: Sequence[PatternOutcome]
    reading: ReadingComparison | None

    @classmethod
    def of(
        cls,
        spec: ReplaySpec,
        recorded: RecordedSet,
        reader: AnswerScorer,
        results: Mapping[str, Sequence[ReplayResult]],
    ) -> ReplayOutcome:
        """Evaluate the results of each pattern; there is at least one."""
        truth = {
            str(record.id): {
                model: [reader.read(record, text) for text in record.answers[model]]
                for model in recorded.models
            }
            for record in recorded.records
        }
        return cls(
            spec=spec,
            reader=reader.name,
            patterns=[_pattern(name, spec, recorded, reader, rows, truth) for name, rows in results.items()],
            reading=None
            if isinstance(reader, ProductScorer)
            else compare_readings(recorded, reader, recorded.models),
        )

    def report(self) -> dict[str, Any]:
        """Return the report for JSON. Shares and differences are from 0 to 1."""
        return {
            "spec": self.spec.model_dump(mode="json"),
            "level": LEVEL,
            "reader": self.reader,
            "reading": None if self.reading is None else asdict(self.reading),
            "patterns": [_row(each) for each in self.patterns],
        }

    def write(self, folder: Path) -> list[str]:
        """Write the report, and return lines that say where it is and what failed. Raises
        `ResultsStorage`."""
        try:
            (folder / REPORT).write_text(json.dumps(self.report(), ensure_ascii=False, indent=2) + "\n")
        except OSError as error:
            raise ResultsStorage(f"cannot write {error.filename or folder}: {error.strerror}") from error
        lines = [f"written: {folder / REPORT}"]
        failed = sum(sum(each.failures.values()) for each in self.patterns)
        if failed:
            lines.append(f"{failed} questions failed and count as wrong; --resume asks them again")
        return lines


def _pattern(
    name: str,
    spec: ReplaySpec,
    recorded: RecordedSet,
    reader: AnswerScorer,
    results: Sequence[ReplayResult],
    truth: Mapping[str, Mapping[str, Sequence[str | None]]],
) -> PatternOutcome:
    by_question = {result.question: result for result in results}
    there = [record for record in recorded.records if str(record.id) in by_question]
    asked = [
        _replayed(record, by_question[str(record.id)], reader, recorded.models, truth[str(record.id)])
        for record in there
    ]
    middle = spec.feedback or len(asked) // 2
    parts = [half_shares("all", asked, seed=spec.seed)]
    if asked[:middle] and asked[middle:]:
        parts.append(half_shares("first", asked[:middle], seed=spec.seed))
        parts.append(half_shares("second", asked[middle:], asked[:middle], seed=spec.seed))
    return PatternOutcome(
        pattern=name,
        parts=parts,
        kinds=Counter(each.vote.kind for each in asked if each.vote is not None),
        chosen=Counter(each.chosen for each in asked[middle:] if each.chosen),
        failures=Counter(each.failed for each in asked if each.failed),
        feedback_counted=sum(bool(result.feedback_counted) for result in results),
    )


def _replayed(
    record: RecordedQuestion,
    result: ReplayResult,
    reader: AnswerScorer,
    models: Sequence[str],
    truth: Mapping[str, Sequence[str | None]],
) -> ReplayedQuestion:
    """Join a record with its result. If the panel is one model, its samples are the members of the vote."""
    gold = reader.gold(record)
    vote = None if result.error else VoteReportRow.from_report(result.report)
    readings = {model: truth[model][0] for model in models}
    full = {model: record.tokens(model, 0) for model in models}
    if len(models) == 1:
        (model,) = models
        voters = max(1, len(vote.voices) if vote else 1)
        readings = {f"{model} #{at:04}": each for at, each in enumerate(truth[model][:voters], 1)}
        full = {model: sum(record.tokens(model, at) for at in range(len(readings)))}
    return ReplayedQuestion(
        question=str(record.id),
        gold=gold,
        answer=None if result.error else result.answer,
        readings=readings,
        shares={model: sum(each == gold for each in truth[model]) / len(truth[model]) for model in models}
        if len(models) == 1
        else {model: float(readings[model] == gold) for model in models},
        full=full,
        written=result.written,
        reported=result.completion_tokens,
        vote=vote,
        chosen=_chosen(result),
        failed=result.error.code if result.error else "",
    )


def _chosen(result: ReplayResult) -> str:
    auto = result.report.get("auto")
    if not isinstance(auto, dict):
        return ""
    pattern = str(auto.get("pattern", ""))
    return f"{pattern} × {result.model}" if pattern == "single" and result.model else pattern


def compare_readings(
    recorded: RecordedSet, scorer: AnswerScorer, models: Collection[str] = ()
) -> ReadingComparison:
    """Compare the readings of the answers of some models, by default of all."""
    own, found = ProductScorer(), ReadingComparison()
    for record in recorded.records:
        answers = [
            text for model, texts in record.answers.items() if not models or model in models for text in texts
        ]
        for text in answers:
            scored = scorer.read(record, text)
            if scored is None:
                continue
            found.scored += 1
            read = own.read(record, text)
            found.read += read is not None
            if read is None or same_answer(read, scored) or read == own.read(record, scored):
                continue
            found.different += 1
            if len(found.examples) < MAX_EXAMPLES:
                found.examples.append({"question": str(record.id), "own": read, "scorer": scored})
    return found


def _row(outcome: PatternOutcome) -> dict[str, Any]:
    return {
        "pattern": outcome.pattern,
        "parts": [_part(each) for each in outcome.parts],
        "kinds": dict(outcome.kinds),
        "chosen": dict(outcome.chosen),
        "failures": dict(outcome.failures),
        "feedback_counted": outcome.feedback_counted,
    }


def _part(each: HalfShares) -> dict[str, Any]:
    row = {known.name: getattr(each, known.name) for known in fields(each)}
    for name in ("pattern", "majority", "oracle", "weighted"):
        row[name] = None if row[name] is None else asdict(row[name])
    for name in ("against_best", "against_majority"):
        row[name] = asdict(row[name]) | {"verdict": row[name].verdict}
    found = each.tokens
    return row | {
        "members": {member: asdict(interval) for member, interval in each.members.items()},
        "tokens": asdict(found)
        | {"unwritten_share": found.unwritten_share, "saved_error": found.saved_error},
        "early_stops": asdict(each.early_stops),
        "readings": _readings(each.readings),
    }


def _readings(figures: ReadingFigures) -> dict[str, Any]:
    return {
        "counted": figures.counted,
        "not_counted": figures.not_counted,
        "counted_unreadable": figures.counted_unreadable,
        "not_counted_unreadable": figures.not_counted_unreadable,
        "not_counted_share": figures.not_counted_share,
        "equal_pairs": figures.pairs[True, True] + figures.pairs[True, False],
        "different_pairs": figures.pairs[False, True] + figures.pairs[False, False],
        "equal_called_different": figures.equal_called_different,
        "different_called_equal": figures.different_called_equal,
        "examples": figures.examples,
    }
