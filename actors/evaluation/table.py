"""Shows an evaluation as a table, losses as clearly as gains."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table
from rich.text import Text

from actors.evaluation.spec import BASELINE, Spec
from orchestration.evaluation.leaderboard import PatternStanding
from orchestration.evaluation.statistics import LEVEL, ComparisonVerdict, Interval

_WORDS = {
    ComparisonVerdict.BETTER: "better",
    ComparisonVerdict.WORSE: "worse",
    ComparisonVerdict.OPEN: "no difference shown",
}
_STYLES = {ComparisonVerdict.BETTER: "green", ComparisonVerdict.WORSE: "red", ComparisonVerdict.OPEN: ""}


def table(spec: Spec, standings: Sequence[PatternStanding]) -> Table:
    """Return a table with one row per pattern, in the given order."""
    rows = Table(title=_title(spec), title_justify="left")
    rows.add_column("pattern")
    for name in (
        "right",
        f"accuracy [{LEVEL:.0%}]",
        f"against {BASELINE}",
        "shown",
        "tokens mean / max",
        "of budget",
        "s p50 / p95",
        "first token s",
        "cost / 1000",
        "failed",
        "with notes",
    ):
        rows.add_column(
            name.replace("[", "\\["), justify="left" if name == "shown" else "right", no_wrap=True
        )
    for each in standings:
        rows.add_row(
            each.pattern,
            f"{each.right} of {each.questions}",
            _percent(each.accuracy),
            _against(each),
            _shown(each),
            f"{each.tokens.mean:.0f} / {each.tokens.maximum:.0f}",
            f"{each.tokens.mean / spec.budget:.0%}",
            f"{each.seconds.median:.1f} / {each.seconds.p95:.1f}",
            "–" if each.first_token_s is None else f"{each.first_token_s:.2f}",
            "–" if each.cost is None else f"{each.cost:.4g}",
            _failed(each),
            str(each.with_notes) if each.with_notes else "–",
        )
    return rows


def _title(spec: Spec) -> str:
    model = f", {spec.model}" if spec.model else ""
    return f"{spec.dataset}: {spec.questions} questions, {spec.budget} tokens each{model}"


def _percent(interval: Interval) -> str:
    return f"{interval.mean:4.0%} \\[{interval.low:.0%} to {interval.high:.0%}]"


def _against(each: PatternStanding) -> str:
    if each.against is None:
        return "–"
    points = each.against.interval
    wins = f"+{each.against.wins} −{each.against.losses}"
    return f"{points.mean * 100:+.0f} \\[{points.low * 100:+.0f} to {points.high * 100:+.0f}], {wins}"


def _shown(each: PatternStanding) -> Text:
    if each.against is None:
        return Text("baseline" if each.pattern == BASELINE else "–")
    verdict = each.against.verdict
    return Text(_WORDS[verdict], style=_STYLES[verdict])


def _failed(each: PatternStanding) -> str:
    return ", ".join(f"{count} {code}" for code, count in sorted(each.failures.items())) or "–"
