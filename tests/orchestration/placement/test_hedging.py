"""When a generation is late, by the times of its model."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from orchestration.placement.hedging import MAX_MODELS, FirstTokens, HedgeSettings

SETTINGS = HedgeSettings(min_samples=20, window_samples=100, window_s=60, min_s=0.05)


@given(st.lists(st.floats(0, 100), min_size=1, max_size=300), st.floats(0.01, 0.99))
def test_a_generation_is_late_beyond_the_quantile_of_the_newest_times(
    seconds: list[float], quantile: float
) -> None:
    settings = SETTINGS.model_copy(update={"quantile": quantile})
    times = FirstTokens(settings)
    for each in seconds:
        times.record("m", each, 0.0)
    newest = sorted(seconds[-settings.window_samples :])
    late = times.late_after_s("m", 0.0)
    if len(newest) < settings.min_samples:
        assert late is None
    else:
        assert late == max(settings.min_s, newest[math.ceil(quantile * len(newest)) - 1])


def test_no_generation_is_late_before_the_minimum_however_fast_the_model_is() -> None:
    times = FirstTokens(SETTINGS)
    for _ in range(100):
        times.record("fast", 0.001, 0.0)
    assert times.late_after_s("fast", 0.0) == SETTINGS.min_s


def test_times_are_of_one_model_and_are_forgotten_with_age() -> None:
    times = FirstTokens(SETTINGS)
    for second in range(40):
        times.record("m", 1.0 if second < 20 else 0.2, float(second))
    assert times.late_after_s("other", 40.0) is None
    assert times.late_after_s("m", 40.0) == 1.0
    assert times.late_after_s("m", 79.5) == 0.2  # the first twenty are older than the window
    assert times.late_after_s("m", 80.5) is None


def test_models_beyond_the_limit_evict_the_least_recently_used() -> None:
    times = FirstTokens(SETTINGS.model_copy(update={"min_samples": 1}))
    times.record("first", 1.0, 0.0)
    times.record("second", 1.0, 0.0)
    times.record("first", 1.0, 0.0)
    for number in range(MAX_MODELS - 1):
        times.record(f"m{number}", 1.0, 0.0)
    assert times.late_after_s("second", 0.0) is None
    assert times.late_after_s("first", 0.0) == 1.0
