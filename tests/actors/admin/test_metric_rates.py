"""Rates and quantiles of metrics between two readings."""

from __future__ import annotations

import pytest

from actors.admin.metric_rates import Rates, Reading

COUNTER = """# TYPE requests counter
requests_total{{model="a"}} {a}
requests_total{{model="b"}} {b}
"""
HISTOGRAM = """# TYPE wait histogram
wait_bucket{{le="0.1"}} {fast}
wait_bucket{{le="1.0"}} {slow}
wait_bucket{{le="+Inf"}} {all}
wait_count {all}
wait_sum 1
"""


def rates(before: dict[str, str], after: dict[str, str]) -> Rates:
    return Rates(Reading.parse(10.0, before), Reading.parse(12.0, after))


def test_a_rate_is_the_growth_of_all_processes_per_second() -> None:
    found = rates(
        {"x": COUNTER.format(a=5, b=1), "y": COUNTER.format(a=0, b=0)},
        {"x": COUNTER.format(a=9, b=1), "y": COUNTER.format(a=2, b=1)},
    )
    assert found.per_second("requests_total", model="a") == 3.0
    assert found.per_second("requests_total") == 3.5


def test_a_process_that_started_again_counts_from_zero() -> None:
    found = rates({"x": COUNTER.format(a=50, b=0)}, {"x": COUNTER.format(a=4, b=0)})
    assert found.growth("requests_total", model="a") == 4.0


def test_a_process_that_was_not_read_before_does_not_count() -> None:
    found = rates({}, {"x": COUNTER.format(a=1_000, b=0)})
    assert found.growth("requests_total") == 0.0


def test_a_quantile_is_interpolated_in_its_bucket() -> None:
    found = rates(
        {"x": HISTOGRAM.format(fast=0, slow=0, all=0)}, {"x": HISTOGRAM.format(fast=50, slow=100, all=100)}
    )
    assert found.quantile(0.5, "wait") == pytest.approx(0.1)
    assert found.quantile(0.75, "wait") == pytest.approx(0.55)


def test_a_quantile_without_observations_is_none() -> None:
    same = {"x": HISTOGRAM.format(fast=5, slow=6, all=6)}
    assert rates(same, same).quantile(0.5, "wait") is None
    assert rates(same, same).quantile(0.5, "other") is None


def test_a_quantile_above_the_last_bound_is_that_bound() -> None:
    found = rates(
        {"x": HISTOGRAM.format(fast=0, slow=0, all=0)}, {"x": HISTOGRAM.format(fast=0, slow=0, all=9)}
    )
    assert found.quantile(0.5, "wait") == 1.0


def test_sums_by_label_join_all_processes() -> None:
    nothing = {"x": COUNTER.format(a=0, b=0), "y": COUNTER.format(a=0, b=0)}
    after = {"x": COUNTER.format(a=5, b=1), "y": COUNTER.format(a=1, b=2)}
    found = rates(nothing, after)
    assert found.by("requests_total", "model") == {"a": 6.0, "b": 3.0}
    assert found.after.total("requests_total") == 9.0
    assert found.after.only("y").total("requests_total") == 3.0
    alone = found.only("y")
    assert alone is not None
    assert alone.growth("requests_total") == 3.0
    assert found.only("z") is None
