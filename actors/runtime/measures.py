"""Counters, gauges and histograms in Prometheus's registry, for one thread each.

Those of prometheus_client take a lock and four calls for each count, for threads that we do not have: a
request makes some forty counts, which were a tenth of its calls. These are written by the event loop alone;
`/metrics` may read them from anywhere.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from itertools import accumulate
from typing import Self

from prometheus_client import REGISTRY
from prometheus_client import Histogram as PrometheusHistogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

USUAL_BUCKETS: Sequence[float] = PrometheusHistogram.DEFAULT_BUCKETS[:-1]
"""Without the last, which is infinite."""


class _Measure(Collector):
    """`names` are those of its labels. With some, use what `labels` gives: one for each set of values."""

    def __init__(self, name: str, about: str, names: Sequence[str] = ()) -> None:
        self.name = name
        self.about = about
        self.names = tuple(names)
        self._of: dict[tuple[str, ...], Self] = {}
        self._reset()
        REGISTRY.register(self)

    def labels(self, *values: str) -> Self:
        """The one with these values, in the order of the names."""
        found = self._of.get(values)
        if found is None:
            if len(values) != len(self.names):
                raise ValueError(f"{self.name} has the labels {self.names}, not {len(values)}")
            found = self._of[values] = copy(self)
            found._reset()
        return found

    def _reset(self) -> None:
        raise NotImplementedError

    def _each(self) -> Iterator[tuple[tuple[str, ...], Self]]:
        """Label values, and what was counted under them."""
        yield from list(self._of.items()) if self.names else [((), self)]


class _Number(_Measure):
    """One number; `family` is what Prometheus calls a set of them."""

    family: type[CounterMetricFamily | GaugeMetricFamily]
    value: float

    def _reset(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        self.value += amount

    def collect(self) -> Iterable[Metric]:
        family = self.family(self.name, self.about, labels=self.names)
        for values, one in self._each():
            family.add_metric(values, one.value)
        yield family


class Counter(_Number):
    """Only rises. Its name has no `_total`: that is added where it is shown."""

    family = CounterMetricFamily


class Gauge(_Number):
    """Rises and falls."""

    family = GaugeMetricFamily

    def set(self, value: float) -> None:
        self.value = value


class Histogram(_Measure):
    """`buckets` are the highest values of each, rising; one without end comes after them."""

    counts: list[int]
    total: float

    def __init__(
        self, name: str, about: str, names: Sequence[str] = (), *, buckets: Sequence[float] = USUAL_BUCKETS
    ) -> None:
        self.bounds = tuple(map(float, buckets))
        super().__init__(name, about, names)

    def _reset(self) -> None:
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self.name, self.about, labels=self.names)
        ends = [*map(floatToGoString, self.bounds), "+Inf"]
        for values, one in self._each():
            counts = map(float, accumulate(one.counts))
            family.add_metric(values, list(zip(ends, counts, strict=True)), one.total)
        yield family
