"""Explains in words why an arm was chosen."""

from __future__ import annotations

from orchestration.bandit.beliefs import Beliefs
from orchestration.query_analysis.profiles import ENSEMBLE, Arm
from orchestration.trust.counts import Counts
from orchestration.trust.trust import Trust


def reason(arm: Arm, expected: float, beliefs: Beliefs) -> str:
    """Explain the choice of `arm`, which has the `expected` share of good answers."""
    if arm.model:
        return model_reason(arm.model, beliefs.trust)
    counts = beliefs.record.arm(arm.name)
    judged = f", {counts.total:.0f} judgements" if counts.total else ""
    if arm.members and arm.pattern == ENSEMBLE:
        best = beliefs.best_of(arm.members)
        share = beliefs.trust.accuracy(best).mean
        panel = f"{len(arm.members)} models together are expected to be right in {expected:.0%}"
        return f"{panel}, the best of them, {best}, in {share:.0%}{judged}"
    if not counts.total:
        return "has the best prior, no run was judged yet"
    return f"{expected:.0%} good answers expected{judged}"


def model_reason(model: str, trust: Trust) -> str:
    """Explain the choice of a model that answers alone."""
    share = trust.accuracy(model).mean
    questions = f"{trust.kind} questions" if trust.kind else "such questions"
    sources = trust.models.get(model, {})
    judged = [counts for source, counts in sources.items() if source != "vote"]
    total = sum(counts.total for counts in judged)
    votes = sources.get("vote", Counts()).total
    if total >= 1:
        share = sum(counts.right for counts in judged) / total
        return f"{model} is right in {share:.0%} of {total:.0f} judged answers to {questions}"
    if votes >= 1:
        return (
            f"{model} is expected to be right in {share:.0%} of {questions}, by {votes:.0f} votes with others"
        )
    return f"{model} has the best prior, no answer was judged yet: right in {share:.0%} of {questions}"
