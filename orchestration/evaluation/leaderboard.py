"""Ranks patterns that answered the same questions: what each got right, and what that cost."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from orchestration.evaluation.result import Result
from orchestration.evaluation.statistics import Difference, Interval, difference, mean_interval


class Price(BaseModel):
    """The price of a model, in any currency."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    input: float = Field(default=0.0, ge=0)
    """Price of a million prompt tokens."""
    output: float = Field(default=0.0, ge=0)
    """Price of a million generated tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FigureSpread:
    """The distribution of a figure over the answered questions."""

    mean: float = 0.0
    median: float = 0.0
    p95: float = 0.0
    maximum: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PatternStanding:
    """The results of one pattern. A failed question counts as wrong, and has no tokens and seconds."""

    pattern: str
    questions: int
    right: int
    """How many answers were right."""
    accuracy: Interval
    """The share of right answers."""
    score: float
    """The mean score, which includes partly right answers."""
    against: Difference | None
    """The difference to the baseline on the questions that both were asked. None for the baseline, and
    without one."""
    tokens: FigureSpread
    calls: float
    """Mean model calls per question."""
    seconds: FigureSpread
    first_token_s: float | None
    """Median seconds to the first token of the answer. None if no answer was streamed."""
    cost: float | None
    """The cost of 1,000 questions. None if a model has no price."""
    failures: Mapping[str, int]
    """Failed questions by error code."""
    with_notes: int
    """Answers with a note, such as that the budget cut something."""
    retried: int
    """Questions that were asked more than once because they were refused at first."""


def leaderboard(
    results: Collection[Result], *, baseline: str, prices: Mapping[str, Price], seed: int = 0
) -> list[PatternStanding]:
    """Rank the patterns by accuracy; among equals, the one with fewer tokens is first."""
    by_pattern: dict[str, dict[str, Result]] = {}
    for result in results:
        by_pattern.setdefault(result.pattern, {})[result.question] = result
    reference = by_pattern.get(baseline, {})
    standings = [
        _standing(pattern, results, {} if pattern == baseline else reference, prices, seed)
        for pattern, results in by_pattern.items()
    ]
    return sorted(standings, key=lambda each: (-each.accuracy.mean, each.tokens.mean, each.pattern))


def _standing(
    pattern: str,
    results: Mapping[str, Result],
    baseline: Mapping[str, Result],
    prices: Mapping[str, Price],
    seed: int,
) -> PatternStanding:
    answered = [result for result in results.values() if result.error is None]
    failures: dict[str, int] = {}
    for result in results.values():
        if result.error is not None:
            failures[result.error.code] = failures.get(result.error.code, 0) + 1
    right = [float(result.right) for result in results.values()]
    firsts = [result.first_token_s for result in answered if result.first_token_s is not None]
    return PatternStanding(
        pattern=pattern,
        questions=len(results),
        right=round(sum(right)),
        accuracy=mean_interval(right, seed=seed),
        score=sum(result.score for result in answered) / len(results),
        against=_against(results, baseline, seed),
        tokens=_spread([result.tokens for result in answered]),
        calls=_spread([result.calls for result in answered]).mean,
        seconds=_spread([result.seconds for result in answered]),
        first_token_s=_spread(firsts).median if firsts else None,
        cost=_cost(answered, prices),
        failures=failures,
        with_notes=sum(bool(result.notes) for result in answered),
        retried=sum(result.attempts > 1 for result in results.values()),
    )


def _against(results: Mapping[str, Result], baseline: Mapping[str, Result], seed: int) -> Difference | None:
    both = [question for question in results if question in baseline]
    if not both:
        return None
    ours = [float(results[question].right) for question in both]
    theirs = [float(baseline[question].right) for question in both]
    return difference(ours, theirs, seed=seed)


def _spread(values: Sequence[float]) -> FigureSpread:
    if not values:
        return FigureSpread()
    median, p95 = np.quantile(values, (0.5, 0.95))
    return FigureSpread(
        mean=float(np.mean(values)), median=float(median), p95=float(p95), maximum=float(max(values))
    )


def _cost(answered: Sequence[Result], prices: Mapping[str, Price]) -> float | None:
    total = 0.0
    for result in answered:
        for model, usage in result.models.items():
            price = prices.get(model)
            if price is None:
                return None
            total += usage.prompt_tokens * price.input + usage.completion_tokens * price.output
    return total / 1e6 * 1000 / len(answered) if answered else None
