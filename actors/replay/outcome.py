"""What a replay comes to: the pattern beside the members of its panel, and what it cost."""

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
    """The product's reading of the recorded answers against a scorer's: `scored` are those that the scorer
    reads, `read` those of them that are read at all, `different` those that are read as another answer,
    `examples` the first of those."""

    scored: int = 0
    read: int = 0
    different: int = 0
    examples: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternOutcome:
    """Of one pattern. `parts` are all questions, and those before and after the middle, which is where the
    feedback ends if there was any. `chosen` counts what `auto` took in the last part."""

    pattern: str
    parts: Sequence[HalfShares]
    kinds: Mapping[str, int]
    chosen: Mapping[str, int]
    failures: Mapping[str, int]
    feedback_counted: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayOutcome:
    """`reading` is None where the product's own reading is the judge."""

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
        """Of the results of each pattern, of which there is at least one."""
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
            patterns=[_pattern(name, spec, recorded, reader, said, truth) for name, said in results.items()],
            reading=None
            if isinstance(reader, ProductScorer)
            else compare_readings(recorded, reader, recorded.models),
        )

    def report(self) -> dict[str, Any]:
        """As JSON. Shares and differences are from 0 to 1."""
        return {
            "spec": self.spec.model_dump(mode="json"),
            "level": LEVEL,
            "reader": self.reader,
            "reading": None if self.reading is None else asdict(self.reading),
            "patterns": [_row(each) for each in self.patterns],
        }

    def write(self, folder: Path) -> list[str]:
        """The report, and lines that say where it is and what failed. Raises `ResultsStorage`."""
        try:
            (folder / REPORT).write_text(json.dumps(self.report(), ensure_ascii=False, indent=2) + "\n")
        except OSError as error:
            raise ResultsStorage(f"cannot write {error.filename or folder}: {error.strerror}") from error
        said = [f"written: {folder / REPORT}"]
        failed = sum(sum(each.failures.values()) for each in self.patterns)
        if failed:
            said.append(f"{failed} questions failed and count as wrong; --resume asks them again")
        return said


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
    """Of a panel of one model its samples are the members of the vote, as many as spoke."""
    gold = reader.gold(record)
    vote = None if result.error else VoteReportRow.from_report(result.report)
    said = {model: truth[model][0] for model in models}
    full = {model: record.tokens(model, 0) for model in models}
    if len(models) == 1:
        (model,) = models
        spoke = max(1, len(vote.voices) if vote else 1)
        said = {f"{model} #{at:04}": each for at, each in enumerate(truth[model][:spoke], 1)}
        full = {model: sum(record.tokens(model, at) for at in range(len(said)))}
    return ReplayedQuestion(
        question=str(record.id),
        gold=gold,
        answer=None if result.error else result.answer,
        readings=said,
        shares={model: sum(each == gold for each in truth[model]) / len(truth[model]) for model in models}
        if len(models) == 1
        else {model: float(said[model] == gold) for model in models},
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
    """Of the answers of some models; without any, of all that are recorded."""
    own, found = ProductScorer(), ReadingComparison()
    for record in recorded.records:
        said = [
            text for model, texts in record.answers.items() if not models or model in models for text in texts
        ]
        for text in said:
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
    said = {known.name: getattr(each, known.name) for known in fields(each)}
    for name in ("pattern", "majority", "oracle", "weighted"):
        said[name] = None if said[name] is None else asdict(said[name])
    for name in ("against_best", "against_majority"):
        said[name] = asdict(said[name]) | {"verdict": said[name].verdict}
    found = each.tokens
    return said | {
        "members": {member: asdict(interval) for member, interval in each.members.items()},
        "tokens": asdict(found)
        | {"unwritten_share": found.unwritten_share, "saved_error": found.saved_error},
        "early_stops": asdict(each.early_stops),
        "readings": _readings(each.readings),
    }


def _readings(heard: ReadingFigures) -> dict[str, Any]:
    return {
        "counted": heard.counted,
        "not_counted": heard.not_counted,
        "counted_unreadable": heard.counted_unreadable,
        "not_counted_unreadable": heard.not_counted_unreadable,
        "not_counted_share": heard.not_counted_share,
        "equal_pairs": heard.pairs[True, True] + heard.pairs[True, False],
        "different_pairs": heard.pairs[False, True] + heard.pairs[False, False],
        "equal_called_different": heard.equal_called_different,
        "different_called_equal": heard.different_called_equal,
        "examples": heard.examples,
    }
