from __future__ import annotations

import pytest

from tests.bench.placement import POLICIES, Simulation, percentile


@pytest.mark.parametrize("dispatchers", [1, 3])
def test_on_nodes_of_different_speed_the_slowest_answers_come_sooner_than_by_any_simpler_policy(
    dispatchers: int,
) -> None:
    p99 = {
        policy: percentile(Simulation(policy, 0.6, dispatchers, seed=11, requests=3_000).run(), 0.99)
        for policy in POLICIES
    }
    ours = p99.pop("orchestra")
    assert ours < min(p99.values())
