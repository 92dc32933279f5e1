"""Measuring patterns against each other: forms of answers, results, and what they show."""

from orchestration.evaluation.forms import Form
from orchestration.evaluation.leaderboard import Price, Spread, Standing, standings
from orchestration.evaluation.result import Result
from orchestration.evaluation.statistics import Difference, Interval, Verdict, difference, mean_interval

__all__ = [
    "Difference",
    "Form",
    "Interval",
    "Price",
    "Result",
    "Spread",
    "Standing",
    "Verdict",
    "difference",
    "mean_interval",
    "standings",
]
