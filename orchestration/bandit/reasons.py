"""Why an arm is chosen, in words."""

from __future__ import annotations

from orchestration.bandit.beliefs import Beliefs
from orchestration.query_analysis.profiles import ENSEMBLE, Arm
from orchestration.trust.counts import Counts
from orchestration.trust.trust import Trust


def reason(arm: Arm, expected: float, beliefs: Beliefs) -> str:
    """`expected` is the share of good answers."""
    if arm.model:
        return model_reason(arm.model, beliefs.trust)
    tally = beliefs.record.arm(arm.name)
    judged = f", {tally.total:.0f} judgements" if tally.total else ""
    if arm.members and arm.pattern == ENSEMBLE:
        best = beliefs.best_of(arm.members)
        share = beliefs.trust.accuracy(best).mean
        together = f"{len(arm.members)} models together are expected to be right in {expected:.0%}"
        return f"{together}, the best of them, {best}, in {share:.0%}{judged}"
    if not tally.total:
        return "thought best before any run was judged"
    return f"{expected:.0%} good answers expected{judged}"


def model_reason(model: str, trust: Trust) -> str:
    """What is known of one that answers alone."""
    share = trust.accuracy(model).mean
    questions = f"{trust.kind} questions" if trust.kind else "such questions"
    sources = trust.models.get(model, {})
    judged = [counts for source, counts in sources.items() if source != "vote"]
    words = sum(counts.total for counts in judged)
    votes = sources.get("vote", Counts()).total
    if words >= 1:
        share = sum(counts.right for counts in judged) / words
        return f"{model} is right in {share:.0%} of {words:.0f} judged answers to {questions}"
    if votes >= 1:
        return (
            f"{model} is expected to be right in {share:.0%} of {questions}, by {votes:.0f} votes with others"
        )
    return f"{model} is thought best before any answer of it was judged: right in {share:.0%} of {questions}"
