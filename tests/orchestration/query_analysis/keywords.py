"""The peer of the analysis: a rule on words, the best that the analysis's own cues give by hand."""

from __future__ import annotations

from orchestration.query_analysis.features import CUES, Kind

ORDER: tuple[Kind, ...] = ("code", "creative", "reasoning", "conversation")
"""The first that shows decides; the order that does best on the training queries."""


def keyword_kind(text: str) -> Kind:
    return next((kind for kind in ORDER if CUES[kind].search(text)), "factual")
