"""How much of an answer comes from each result, by the words that its sentences share with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestration.patterns.graph import TaskResult
from orchestration.patterns.grounding_check import claims_of, evidence, judged


def contributions(answer: str, results: Sequence[TaskResult]) -> list[dict[str, Any]]:
    """The number and the share of the answer's sentences that come from each result. A sentence comes from
    the result that has most of its words, if they are enough to support it: see
    `orchestration.patterns.grounding_check`. All other sentences count for no result."""
    found = [result for result in results if result.text]
    claims = judged(claims_of(answer), evidence(result.text for result in found), {})
    sources = [claim.source for claim in claims if claim.supported]
    return [
        {
            "step": result.task.step,
            "specialist": result.task.specialist,
            "revision": result.revision,
            "sentences": sources.count(at),
            "share": round(sources.count(at) / len(claims), 3) if claims else 0.0,
        }
        for at, result in enumerate(found)
    ]
