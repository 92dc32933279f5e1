"""Which finding went into an answer, by the words that its sentences share with each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from orchestration.patterns.grounding_check import claims_of, evidence, judged
from orchestration.patterns.specialists import SpecialistResult


def contributions(answer: str, findings: Sequence[SpecialistResult]) -> list[dict[str, Any]]:
    """For each finding how many of the answer's sentences come from it, and their share. A sentence comes
    from the finding whose words cover most of its own, where that is enough to support it: see
    `orchestration.patterns.grounding_check`. What comes from none is the writer's."""
    told = [finding for finding in findings if finding.text]
    claims = judged(claims_of(answer), evidence(finding.text for finding in told), {})
    taken = [claim.source for claim in claims if claim.supported]
    return [
        {
            "step": finding.name,
            "specialist": finding.step.specialist,
            "revision": finding.revision,
            "sentences": taken.count(at),
            "share": round(taken.count(at) / len(claims), 3) if claims else 0.0,
        }
        for at, finding in enumerate(told)
    ]
