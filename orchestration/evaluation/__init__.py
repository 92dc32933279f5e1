"""Compares patterns: forms of answers, results, statistics and the leaderboard."""

from orchestration.evaluation.forms import AnswerForm
from orchestration.evaluation.leaderboard import FigureSpread, PatternStanding, Price, leaderboard
from orchestration.evaluation.result import Result
from orchestration.evaluation.statistics import (
    ComparisonVerdict,
    Difference,
    Interval,
    difference,
    mean_interval,
)

__all__ = [
    "AnswerForm",
    "ComparisonVerdict",
    "Difference",
    "FigureSpread",
    "Interval",
    "PatternStanding",
    "Price",
    "Result",
    "difference",
    "leaderboard",
    "mean_interval",
]
