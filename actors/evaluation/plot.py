"""Plots an evaluation: the share of right answers of each pattern over its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from actors.evaluation.spec import BASELINE, Spec
from actors.installation.optional_imports import ExtraMissing
from orchestration.evaluation.leaderboard import PatternStanding
from orchestration.evaluation.statistics import LEVEL


def plot(spec: Spec, standings: Sequence[PatternStanding], file: Path) -> None:
    """Write a PNG. Raises `ExtraMissing`."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ExtraMissing.of("eval", "the plot", "matplotlib") from error
    figure = Figure(figsize=(8, 5), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for each in standings:
        low, high = each.accuracy.mean - each.accuracy.low, each.accuracy.high - each.accuracy.mean
        tokens, accuracy = each.tokens.mean, 100 * each.accuracy.mean
        axes.errorbar(
            tokens,
            accuracy,
            yerr=[[100 * low], [100 * high]],
            fmt="s" if each.pattern == BASELINE else "o",
            color="black" if each.pattern == BASELINE else None,
            capsize=3,
        )
        axes.annotate(each.pattern, (tokens, accuracy), xytext=(7, 5), textcoords="offset points")
    axes.axvline(spec.budget, linestyle=":", color="grey")
    axes.annotate("budget", (spec.budget, 2), rotation=90, color="grey", ha="right", va="bottom")
    axes.set_xlim(left=0, right=1.15 * max(spec.budget, *(each.tokens.mean for each in standings)))
    axes.set_ylim(0, 105)
    axes.set_xlabel("tokens per question, read and written (mean)")
    axes.set_ylabel(f"right answers, % (bars: {LEVEL:.0%} interval)")
    axes.set_title(f"{spec.dataset}, {spec.questions} questions{f', {spec.model}' if spec.model else ''}")
    axes.grid(alpha=0.3)
    figure.savefig(file)
