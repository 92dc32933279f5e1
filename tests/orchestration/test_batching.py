"""The policy against a simulated server and clock: a batch takes a fixed time and some for each in it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from random import Random

import pytest

from orchestration.batching import AdaptiveBatching, Batching, BatchingSettings
from orchestration.errors import InvalidRequest

SIZES = (1, 2, 4, 8, 16, 32)
SETTINGS = BatchingSettings(target_s=0.2, sizes=SIZES, max_window_s=0.05)
RELOADED = BatchingSettings(target_s=0.2, sizes=SIZES, max_window_s=0.05, horizon_s=10, hold_s=60, calm_s=120)


@dataclass(slots=True)
class Simulated:
    """One server: a batch begins once it is full, or its first has waited for the window."""

    fixed_s: float
    each_s: float
    policy: AdaptiveBatching | None
    kept: Batching = field(default_factory=lambda: Batching(window_s=0.0, sizes=(1,)))
    changes: list[tuple[float, Batching]] = field(default_factory=list)
    latencies: list[tuple[float, float]] = field(default_factory=list)
    """When each was asked for, and how long it took."""

    def run(self, arrivals: Sequence[float]) -> None:
        waiting: deque[float] = deque()
        coming = deque(arrivals)
        now = 0.0
        while coming or waiting:
            if not waiting:
                while self.policy and now + 1 < coming[0]:  # an owner asks now and then, whatever happens
                    now += 1
                    self._decide(now)
                waiting.append(coming.popleft())
                now = max(now, waiting[0])
            kept = self._decide(now)
            until = max(now, waiting[0] + kept.window_s)
            while coming and (coming[0] <= now or (len(waiting) < kept.size and coming[0] <= until)):
                waiting.append(coming.popleft())
                now = max(now, waiting[-1])
            if len(waiting) < kept.size:
                now = until
            batch = [waiting.popleft() for _ in range(min(kept.size, len(waiting)))]
            took = self.fixed_s + self.each_s * len(batch)
            if self.policy:
                self.policy.observe(now + took, size=len(batch), waited_s=now - batch[0], took_s=took)
            now += took
            self.latencies += [(asked, now - asked) for asked in batch]

    def _decide(self, now: float) -> Batching:
        decided = self.policy.decide(now) if self.policy else self.kept
        if decided != self.kept:
            self.changes.append((now, decided))
            self.kept = decided
        return decided

    def p95(self, since: float = 0.0, until: float = 1e9) -> float:
        took = sorted(took for asked, took in self.latencies if since <= asked < until)
        return took[len(took) * 95 // 100]


def steady(rate: float, since: float, until: float, seed: int = 1) -> Iterator[float]:
    """Arrivals as they come from many independent callers."""
    random = Random(seed)
    at = since + random.expovariate(rate)
    while at < until:
        yield at
        at += random.expovariate(rate)


def adaptive(fixed_s: float, each_s: float, settings: BatchingSettings = SETTINGS) -> Simulated:
    return Simulated(fixed_s, each_s, AdaptiveBatching(settings, 0.0))


def test_an_idle_model_makes_nobody_wait_for_company() -> None:
    server = adaptive(0.01, 0.001)
    server.run(list(steady(2, 0, 60)))
    assert server.changes == []
    assert server.p95() < 0.03


def test_pressure_brings_larger_batches_and_a_wait_for_company_within_the_latency_aimed_at() -> None:
    arrivals = list(steady(400, 0, 20))
    one_by_one = Simulated(0.01, 0.001, None)
    one_by_one.run(arrivals)
    server = adaptive(0.01, 0.001)
    server.run(arrivals)
    assert one_by_one.p95(10) > 5, "one at a time does not keep up with this"
    assert server.kept.size >= 8
    assert 0 < max(kept.window_s for _, kept in server.changes) <= SETTINGS.max_window_s
    assert server.p95(10) < SETTINGS.target_s


def test_where_a_batch_saves_nothing_nobody_waits_for_it() -> None:
    server = adaptive(0.0002, 0.002)
    server.run(list(steady(450, 0, 20)))
    assert max((kept.window_s for _, kept in server.changes[3:]), default=0.0) == 0


def test_nobody_waits_where_batches_are_full_by_themselves() -> None:
    server = adaptive(0.02, 0.001, replace(SETTINGS, sizes=(8,)))
    server.run(list(steady(800, 0, 10)))  # more than it can bear: what waits fills every batch
    assert {kept.window_s for _, kept in server.changes} == {0.0}


def test_a_window_that_makes_all_wait_is_not_taken_for_pressure() -> None:
    settings = BatchingSettings(target_s=0.06, sizes=(32,), max_window_s=0.02)
    server = adaptive(0.01, 0.001, settings)
    server.run([*steady(90, 0, 20), *steady(2, 20, 60, 2)])
    assert max(kept.window_s for _, kept in server.changes) > settings.target_s / 4
    assert server.kept.window_s == 0
    assert server.p95(36) < 0.03


def test_a_burst_is_met_with_timeout_and_forgotten_after_some_calm() -> None:
    server = adaptive(0.02, 0.001)
    arrivals = [*steady(2, 0, 20), *steady(400, 20, 26, 2), *steady(2, 26, 60, 3)]
    server.run(arrivals)
    grown = next(at for at, kept in server.changes if kept.size > 1)
    assert 20 < grown < 22
    assert server.p95(23, 26) < SETTINGS.target_s
    assert server.kept == Batching(window_s=0.0, sizes=SIZES[:1])
    assert server.changes[-1][0] < 35
    assert server.p95(36) < 0.03


def test_a_ramp_is_followed_upwards_step_by_step() -> None:
    server = adaptive(0.02, 0.001)
    server.run([at for step in range(10) for at in steady(20 + 40 * step, step * 5, step * 5 + 5, step)])
    sizes = [kept.size for _, kept in server.changes]
    ups = [(before, after) for before, after in pairwise(sizes) if after > before]
    assert max(sizes) >= 16
    assert len(ups) >= 2
    assert server.p95(40) < SETTINGS.target_s


def test_no_batch_is_allowed_that_takes_longer_than_what_is_aimed_at() -> None:
    server = adaptive(0.01, 0.02)
    server.run(list(steady(60, 0, 15)))  # more than it can bear whatever is done
    assert all(0.01 + 0.02 * kept.size <= 0.2 for _, kept in server.changes)


@pytest.mark.simulation
def test_a_load_that_flutters_does_not_reload_a_model_every_minute() -> None:
    server = adaptive(0.02, 0.001, RELOADED)
    flutter = [at for lap in range(60) for at in steady(300 if lap % 2 else 20, lap * 10, lap * 10 + 10, lap)]
    server.run(flutter)
    assert 1 <= len(server.changes) <= 4, "in ten minutes, of sixty changes of the load"
    assert all(after - before >= RELOADED.hold_s for (before, _), (after, _) in pairwise(server.changes))


def test_sums_over_many_batches_say_the_same_as_each_of_them() -> None:
    each, sums = AdaptiveBatching(SETTINGS, 0.0), AdaptiveBatching(SETTINGS, 0.0)
    for now in (0.5, 1.0, 1.5):
        for at in range(10):
            each.observe(now + at / 1000, size=4, waited_s=0.15, took_s=0.04)
        sums.observe(now, size=4, waited_s=0.15, took_s=0.04, batches=10)
    assert each.decide(2.0) == sums.decide(2.0)
    assert each.current.size > 1


@pytest.mark.parametrize("sizes", [(), (2, 1), (0, 1), (1, 1)])
def test_sizes_that_do_not_grow_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(InvalidRequest, match="do not grow"):
        BatchingSettings(target_s=1, sizes=sizes)
