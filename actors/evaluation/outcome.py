"""The result of an evaluation, and its files."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from actors.evaluation.errors import ResultsStorage
from actors.evaluation.plot import plot
from actors.evaluation.spec import BASELINE, Spec
from actors.installation.optional_imports import ExtraMissing
from orchestration.evaluation.leaderboard import PatternStanding, Price, leaderboard
from orchestration.evaluation.result import Result
from orchestration.evaluation.statistics import LEVEL

REPORT, PLOT = "report.json", "plot.png"


@dataclass(frozen=True, slots=True)
class EvaluationResult:
    """The result of an evaluation; the best standing is first."""

    spec: Spec
    standings: Sequence[PatternStanding]

    @classmethod
    def of(cls, spec: Spec, results: Collection[Result], prices: Mapping[str, Price]) -> Self:
        return cls(spec, leaderboard(results, baseline=BASELINE, prices=prices, seed=spec.seed))

    def report(self) -> dict[str, Any]:
        """Return the report for JSON. Shares and differences are from 0 to 1; `cost` is per 1,000
        questions."""
        return {
            "spec": self.spec.model_dump(),
            "baseline": BASELINE,
            "level": LEVEL,
            "patterns": [self._row(each) for each in self.standings],
        }

    def write(self, folder: Path) -> list[str]:
        """Write the report and the plot, and return lines that say where they are, what failed and what is
        missing. Raises `ResultsStorage`."""
        try:
            (folder / REPORT).write_text(json.dumps(self.report(), ensure_ascii=False, indent=2) + "\n")
            try:
                plot(self.spec, self.standings, folder / PLOT)
                lines = [f"written: {folder / REPORT}, {folder / PLOT}"]
            except ExtraMissing as error:
                lines = [f"written: {folder / REPORT}", error.message]
        except OSError as error:
            raise ResultsStorage(f"cannot write {error.filename or folder}: {error.strerror}") from error
        failed = sum(sum(each.failures.values()) for each in self.standings)
        if failed:
            lines.append(f"{failed} questions failed and count as wrong; --resume asks them again")
        return lines

    def _row(self, standing: PatternStanding) -> dict[str, Any]:
        row = asdict(standing)
        row["budget_share"] = standing.tokens.mean / self.spec.budget
        if standing.against is not None:
            row["against"]["verdict"] = standing.against.verdict
        return row
