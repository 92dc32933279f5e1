"""Rates and quantiles of a cluster's metrics between two readings of all its processes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]
Values = dict[str, dict[Labels, float]]
"""Values by the name of the sample and by its labels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The metrics of each process at one moment."""

    at: float
    """Monotonic time in seconds."""
    processes: Mapping[str, Values]
    """The values by the id of the process."""

    @classmethod
    def parse(cls, at: float, texts: Mapping[str, str]) -> Reading:
        """Read Prometheus' text format. Raises `ValueError` for a text that is none."""
        return cls(at=at, processes={process: parse_values(text) for process, text in texts.items()})

    def only(self, process: str) -> Reading:
        """The part of one process."""
        return Reading(at=self.at, processes={process: self.processes[process]})

    def total(self, name: str, **labels: str) -> float:
        """The sum over all processes of the samples that have these labels."""
        return sum(
            value
            for values in self.processes.values()
            for found, value in _matching(values.get(name, {}), labels)
        )


class Rates:
    """What happened between two readings. A process that has started again counts from zero."""

    def __init__(self, before: Reading, after: Reading) -> None:
        self.before, self.after = before, after
        self.seconds = max(after.at - before.at, 1e-3)
        self._growth: dict[str, defaultdict[Labels, float]] = {}
        for process, values in after.processes.items():
            old = before.processes.get(process)
            if old is None:  # it is new, or did not answer before
                continue
            for name, samples in values.items():
                grown = self._growth.setdefault(name, defaultdict(float))
                for labels, value in samples.items():
                    earlier = old.get(name, {}).get(labels, 0.0)
                    grown[labels] += value - earlier if value >= earlier else value

    def only(self, process: str) -> Rates | None:
        """The rates of one process; None if it was not read twice."""
        if process not in self.before.processes or process not in self.after.processes:
            return None
        return Rates(self.before.only(process), self.after.only(process))

    def growth(self, name: str, **labels: str) -> float:
        """By how much the counters with these labels have grown."""
        return sum(value for _, value in _matching(self._growth.get(name, {}), labels))

    def by(self, name: str, label: str, **labels: str) -> dict[str, float]:
        """The growth by the value of one label."""
        sums: defaultdict[str, float] = defaultdict(float)
        for found, value in _matching(self._growth.get(name, {}), labels):
            sums[dict(found).get(label, "")] += value
        return dict(sums)

    def per_second(self, name: str, **labels: str) -> float:
        """`growth` per second."""
        return self.growth(name, **labels) / self.seconds

    def quantile(self, share: float, name: str, **labels: str) -> float | None:
        """The quantile `share` of a histogram's observations, interpolated in its bucket as Prometheus does;
        None without observations. One above the last bound counts as that bound."""
        buckets: defaultdict[float, float] = defaultdict(float)
        for found, value in _matching(self._growth.get(f"{name}_bucket", {}), labels):
            buckets[float(dict(found)["le"])] += value
        bounds = sorted(buckets)
        if not bounds or buckets[bounds[-1]] <= 0:
            return None
        wanted, lower, below = share * buckets[bounds[-1]], 0.0, 0.0
        for bound in bounds:
            if buckets[bound] >= wanted:
                if math.isinf(bound):
                    return lower
                inside = buckets[bound] - below
                return lower + (bound - lower) * ((wanted - below) / inside if inside else 1.0)
            lower, below = bound, buckets[bound]
        return lower


def parse_values(text: str) -> Values:
    """The samples of one process. Raises `ValueError` for a text that is not Prometheus' format."""
    values: Values = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            values.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value
    return values


def _matching(samples: Mapping[Labels, float], labels: Mapping[str, str]) -> Iterator[tuple[Labels, float]]:
    wanted = frozenset(labels.items())
    return ((found, value) for found, value in samples.items() if wanted <= found)
