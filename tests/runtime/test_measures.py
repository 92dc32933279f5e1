from __future__ import annotations

import prometheus_client
import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from actors.runtime.measures import Counter, Gauge, Histogram


def test_what_is_measured_is_shown_as_prometheus_client_shows_it() -> None:
    counter = Counter("measured_calls", "Calls", ["who", "how"])
    counter.labels("ann", "well").inc()
    counter.labels("ann", "well").inc(2)
    counter.labels('b"o\nb', "badly").inc(0.5)
    gauge = Gauge("measured_level", "Level")
    gauge.set(7)
    gauge.set(8)
    usual = Histogram("measured_usual_seconds", "Seconds")
    own = Histogram("measured_own_seconds", "Seconds", ["who"], buckets=(1, 2.5, 10))

    registry = CollectorRegistry()
    their_counter = prometheus_client.Counter("measured_calls", "Calls", ["who", "how"], registry=registry)
    their_counter.labels("ann", "well").inc(3)
    their_counter.labels('b"o\nb', "badly").inc(0.5)
    prometheus_client.Gauge("measured_level", "Level", registry=registry).set(8)
    their_usual = prometheus_client.Histogram("measured_usual_seconds", "Seconds", registry=registry)
    their_own = prometheus_client.Histogram(
        "measured_own_seconds", "Seconds", ["who"], buckets=(1, 2.5, 10), registry=registry
    )
    for seconds in (0.0, 1.0, 1.5, 2.5, 10.0, 11.0):  # at bounds, between them, and past the last
        usual.observe(seconds)
        own.labels("ann").observe(seconds)
        their_usual.observe(seconds)
        their_own.labels("ann").observe(seconds)

    def shown(of: CollectorRegistry) -> list[str]:
        lines = generate_latest(of).decode().splitlines()
        return [line for line in lines if "measured_" in line and "_created" not in line]

    assert shown(REGISTRY) == shown(registry)


def test_a_measure_wants_a_value_for_each_of_its_labels() -> None:
    counter = Counter("measured_strictly", "Calls", ["who", "how"])
    with pytest.raises(ValueError, match="measured_strictly has the labels"):
        counter.labels("ann")
    assert REGISTRY.get_sample_value("measured_strictly_total", {"who": "ann", "how": ""}) is None
