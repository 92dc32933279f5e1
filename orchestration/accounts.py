"""What a run has read and written: by model, and how much of it is in no answer."""

from __future__ import annotations

from collections.abc import Iterable

from orchestration.messages import Accounts, Step, Usage


def total_of(steps: Iterable[Step]) -> Usage:
    """Of all steps, also of those that failed or were stopped."""
    return sum((step.usage for step in steps), Usage())


def accounts_of(steps: Iterable[Step]) -> Accounts:
    """Of steps that used any tokens. A model that nobody named is ''."""
    by_model: dict[str, Usage] = {}
    discarded = Usage()
    for step in steps:
        if step.usage.prompt_tokens or step.usage.completion_tokens:
            by_model[step.model] = by_model.get(step.model, Usage()) + step.usage
            if step.discarded:
                discarded += step.usage
    return Accounts(by_model=by_model, discarded=discarded)
