"""How patterns stand: losses beside gains, failures counted as wrong, costs where prices are known."""

from __future__ import annotations

import json
import sys
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from actors.evaluation.outcome import PLOT, REPORT, EvaluationResult
from actors.evaluation.spec import Spec
from actors.evaluation.table import table
from orchestration.errors import BudgetExceeded
from orchestration.evaluation import ComparisonVerdict, Price, Result
from orchestration.messages import Usage

QUESTIONS = 20
SPEC = Spec(dataset="sums", fingerprint="f", questions=QUESTIONS, budget=100)


def results(pattern: str, right: int, *, failed: int = 0, tokens: int = 50) -> list[Result]:
    """The first `right` are, the last `failed` did not come."""
    made = []
    for number in range(QUESTIONS):
        result = Result(
            pattern=pattern,
            question=str(number),
            score=1.0 if number < right else 0.5,
            tokens=tokens,
            calls=2,
            seconds=number / 10,
            first_token_s=0.1,
            models={"m": Usage(prompt_tokens=tokens - 10, completion_tokens=10)},
        )
        if number >= QUESTIONS - failed:
            result = Result(pattern=pattern, question=str(number), error=BudgetExceeded("too small").body())
        made.append(result)
    return made


@pytest.fixture
def outcome() -> EvaluationResult:
    prices = {"m": Price(input=1, output=2)}
    asked = [
        *results("self-consistency", 10, tokens=90),
        *results("debate", 2, failed=5),
        *results("ensemble", 19),
        *results("single", 10),
    ]
    return EvaluationResult.of(SPEC, asked, prices)


def test_they_are_sorted_and_compared_with_the_baseline_by_question(outcome: EvaluationResult) -> None:
    ensemble, single, baseline, debate = outcome.standings
    assert [each.pattern for each in outcome.standings] == [
        "ensemble",
        "single",
        "self-consistency",
        "debate",
    ]
    assert baseline.against is None
    assert ensemble.against is not None
    assert (ensemble.against.wins, ensemble.against.losses) == (9, 0)
    assert ensemble.against.verdict is ComparisonVerdict.BETTER
    assert debate.against is not None
    assert debate.against.verdict is ComparisonVerdict.WORSE
    assert debate.accuracy.mean == pytest.approx(0.1)
    assert debate.failures == {"budget_exceeded": 5}
    assert single.against is not None
    assert single.against.verdict is ComparisonVerdict.OPEN
    assert single.tokens.mean == single.tokens.maximum == 50
    assert single.seconds.median == pytest.approx(0.95)
    assert single.seconds.p95 == pytest.approx(1.805)
    assert single.cost == pytest.approx((40 * 1 + 10 * 2) / 1e6 * 1000)


def test_without_a_price_there_is_no_cost_and_without_the_baseline_no_comparison() -> None:
    outcome = EvaluationResult.of(SPEC, results("single", 3), {"other": Price(input=1)})
    assert outcome.standings[0].cost is None
    assert outcome.standings[0].against is None


def test_the_table_says_what_loses_as_plainly_as_what_gains(outcome: EvaluationResult) -> None:
    printed = StringIO()
    Console(width=250, file=printed).print(table(SPEC, outcome.standings))
    lines = printed.getvalue().splitlines()
    rows = {line.split("│")[1].strip(): line for line in lines if "│" in line}
    assert "19 of 20" in rows["ensemble"]
    assert "+9 −0" in rows["ensemble"]
    assert " better " in rows["ensemble"]
    assert " worse " in rows["debate"]
    assert "5 budget_exceeded" in rows["debate"]
    assert " 10% [0% to 25%]" in rows["debate"]
    assert "no difference shown" in rows["single"]
    assert "baseline" in rows["self-consistency"]
    assert "90%" in rows["self-consistency"]


def test_a_report_and_a_picture_are_written(outcome: EvaluationResult, tmp_path: Path) -> None:
    said = outcome.write(tmp_path)
    assert said[-1] == "5 questions failed and count as wrong; --resume asks them again"
    report = json.loads((tmp_path / REPORT).read_text())
    assert report["spec"]["budget"] == 100
    assert report["patterns"][0]["pattern"] == "ensemble"
    assert report["patterns"][0]["against"]["verdict"] == "better"
    assert report["patterns"][2]["budget_share"] == pytest.approx(0.9)
    picture = (tmp_path / PLOT).read_bytes()
    assert picture.startswith(b"\x89PNG")
    assert len(picture) > 10_000


def test_without_matplotlib_the_report_is_written_and_the_plot_is_told(
    outcome: EvaluationResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    said = outcome.write(tmp_path)
    assert "the plot needs matplotlib: pip install 'orchestra-llm[eval]'" in said
    assert (tmp_path / REPORT).exists()
    assert not (tmp_path / PLOT).exists()
