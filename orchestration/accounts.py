"""Token accounts of a run: by model, and the part that no answer contains."""

from __future__ import annotations

from collections.abc import Iterable

from orchestration.messages import Accounts, Step, Usage


def total_of(steps: Iterable[Step]) -> Usage:
    """The usage of all steps, including those that failed or were stopped."""
    return sum((step.usage for step in steps), Usage())


def accounts_of(steps: Iterable[Step]) -> Accounts:
    """The accounts of steps that used tokens. A model without a name is ''."""
    by_model: dict[str, Usage] = {}
    discarded = Usage()
    for step in steps:
        if step.usage.prompt_tokens or step.usage.completion_tokens:
            by_model[step.model] = by_model.get(step.model, Usage()) + step.usage
            if step.discarded:
                discarded += step.usage
    return Accounts(by_model=by_model, discarded=discarded)
