"""Texts that are passed on together share the available tokens."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestration.patterns.clipping import clip_fairly, estimate_tokens
from tests.orchestration.patterns.graphs import unhurried


@unhurried
@given(st.lists(st.text(max_size=400), max_size=6), st.integers(0, 120))
def test_texts_clipped_fairly_fit_together_and_short_ones_stay_whole(texts: list[str], tokens: int) -> None:
    cut = clip_fairly(texts, tokens)
    note = estimate_tokens(" […99999 characters left out…] ")
    assert len(cut) == len(texts)
    clipped = sum("characters left out" in each for each in cut)
    assert sum(map(estimate_tokens, cut)) <= tokens + note * clipped + 1e-6
    for text, each in zip(texts, cut, strict=True):
        if estimate_tokens(text.strip()) <= tokens // max(1, len(texts)):
            assert each == text.strip()


def test_what_short_texts_leave_goes_to_long_ones() -> None:
    long = "word " * 500
    cut = clip_fairly(["short", long], 100)
    assert cut[0] == "short"
    assert estimate_tokens(cut[1]) > 90
