from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from orchestration.restarts import RestartPolicy, Restarts


@given(
    st.lists(st.floats(0, 200), max_size=30).map(sorted),
    st.floats(0, 1, exclude_max=True),
    st.integers(0, 6),
)
def test_restarts_back_off_within_bounds_and_end_when_too_many_fall_into_the_window(
    times: list[float], chance: float, most: int
) -> None:
    policy = RestartPolicy(
        backoff_s=0.5, factor=2, max_backoff_s=8, jitter=0.2, max_restarts=most, window_s=60
    )
    restarts = Restarts(policy)
    restarted: list[float] = []
    for now in times:
        within = [time for time in restarted if now - time <= policy.window_s]
        delay = restarts.after_crash(now, chance)
        assert (delay is None) == (len(within) >= most)
        if delay is not None:
            plain = min(0.5 * 2 ** len(within), 8)
            assert plain * 0.8 <= delay <= plain * 1.2
            restarted.append(now)
