"""Forecasts which models are needed soon: from recent arrivals, the hour of the week, and active runs.

A decaying average gives the present rate. A profile of the 168 hours of a week, each smoothed from week to
week, gives the usual rate of this hour. If both are known each counts half, since an average of forecasts is
better than most of its parts (Bates and Granger, 1969). A run that has used one model tells which one it will
use next, by counts of what followed before (a Markov chain of order one).

Pure: `now` is Unix time in seconds, since the hour of the week matters.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping

from pydantic import Field

from orchestration.messages import Wire

HOUR_S, WEEK_H = 3600, 168
DAY_H = 24
SMOOTHING = 0.4
"""The weight of the latest week against the earlier ones."""
FOLLOWER_DECAY = 0.98
"""Counts of followers are multiplied by this at each call: about fifty calls are remembered."""
MAX_RUNS = 1000
MAX_MODELS = 200
MAX_STEPS = 1000
"""Maximum active runs, models, and pairs of pattern and model; the oldest are evicted."""


class ModelCall(Wire):
    """A model call in a run of `pattern`; `run` identifies the run, as its trace id does."""

    run: str
    pattern: str
    model: str


class Arrivals(Wire):
    """Arrivals of one model: `recent` is the decayed count at time `at`, `first` the time of the first one,
    `hours` the usual number in each hour of the week (hour 0 is Thursday 0 h UTC, the start of Unix time),
    and `count` the number in the hour of `at`."""

    recent: float = 0.0
    at: float = 0.0
    first: float = 0.0
    hours: dict[int, float] = Field(default_factory=dict)
    count: float = 0.0


class ForecastState(Wire):
    """The stored state of a forecast."""

    models: dict[str, Arrivals] = Field(default_factory=dict)
    followers: dict[str, dict[str, float]] = Field(default_factory=dict)
    """Counts of the next model, by pattern and model; the name '' stands for the end of the run."""
    at: float = Field(default=0.0, ge=0)


class Forecast:
    """`half_life_s` is that of the decaying average; a run without a call for `run_s` counts as ended."""

    def __init__(self, *, half_life_s: float = 900.0, run_s: float = 60.0) -> None:
        self.half_life_s = half_life_s
        self.run_s = run_s
        self._models: dict[str, Arrivals] = {}
        self._followers: OrderedDict[str, dict[str, float]] = OrderedDict()
        self._runs: OrderedDict[str, tuple[str, float]] = OrderedDict()
        """The latest state of each run, and its time."""

    @classmethod
    def restored(cls, state: ForecastState, *, half_life_s: float = 900.0, run_s: float = 60.0) -> Forecast:
        """A forecast that continues from `state`."""
        made = cls(half_life_s=half_life_s, run_s=run_s)
        made._models = dict(state.models)
        made._followers = OrderedDict((key, dict(next_)) for key, next_ in state.followers.items())
        return made

    def state(self, now: float) -> ForecastState:
        """The state to store, without active runs."""
        followers = {key: dict(next_) for key, next_ in self._followers.items()}
        return ForecastState(models=dict(self._models), followers=followers, at=now)

    def add_arrivals(self, model: str, now: float, count: float = 1.0) -> None:
        """Add `count` generations of `model`."""
        known = self._models.get(model)
        if known is None:
            if len(self._models) >= MAX_MODELS:
                del self._models[min(self._models, key=lambda name: self._models[name].at)]
            known = Arrivals(at=now, first=now)
        known = self._advanced_to(known, now)
        update = {"recent": known.recent + count, "count": known.count + count}
        self._models[model] = known.model_copy(update=update)

    def add_call(self, step: ModelCall, now: float) -> None:
        """A run calls a model; `add_arrivals` counts it as an arrival."""
        before = self._runs.pop(step.run, None)
        if before is not None:
            self._add_follower(before[0], step.model)
        self._runs[step.run] = f"{step.pattern}\n{step.model}", now
        while len(self._runs) > MAX_RUNS:
            self._add_follower(self._runs.popitem(last=False)[1][0], "")
        self._end_runs(now)

    def expected(self, now: float, horizon_s: float) -> dict[str, float]:
        """The expected generations of each known model between `now` and `now + horizon_s`."""
        self._end_runs(now)
        found = {model: self._expected_of(known, now, horizon_s) for model, known in self._models.items()}
        for state, _ in self._runs.values():
            next_ = self._followers.get(state, {})
            total = sum(next_.values())
            for model, count in next_.items():
                if model:
                    found[model] = found.get(model, 0.0) + count / total
        return found

    def _expected_of(self, known: Arrivals, now: float, horizon_s: float) -> float:
        brought = self._advanced_to(known, now)
        # A decayed count in a steady state is rate * half life / ln 2, and less at its beginning.
        seen_s = max(now - brought.first, 1.0)
        memory_s = self.half_life_s / math.log(2)
        rate = brought.recent / (memory_s * (1 - math.exp(-max(seen_s, self.half_life_s) / memory_s)))
        lately = rate * horizon_s
        profile = _from_profile(brought.hours, now, horizon_s)
        return lately if profile is None else (lately + profile) / 2

    def _advanced_to(self, known: Arrivals, now: float) -> Arrivals:
        """The arrivals as of `now`: decayed, and with the hours that have passed added to the profile."""
        if now <= known.at:
            return known
        recent = known.recent * 0.5 ** ((now - known.at) / self.half_life_s)
        hour, this_hour = int(known.at // HOUR_S), int(now // HOUR_S)
        if hour == this_hour:
            return known.model_copy(update={"recent": recent, "at": now})
        hours = dict(known.hours)
        began = known.first > hour * HOUR_S
        part = (hour + 1) * HOUR_S - known.first if began else HOUR_S
        _learn(hours, hour, known.count * HOUR_S / max(part, HOUR_S / 4))
        for passed in range(max(hour + 1, this_hour - WEEK_H), this_hour):
            _learn(hours, passed, 0.0)
        return known.model_copy(update={"recent": recent, "at": now, "hours": hours, "count": 0.0})

    def _add_follower(self, state: str, model: str) -> None:
        next_ = self._followers.pop(state, {})
        for name in list(next_):
            next_[name] *= FOLLOWER_DECAY
            if next_[name] < 0.01:
                del next_[name]
        next_[model] = next_.get(model, 0.0) + 1.0
        self._followers[state] = next_
        while len(self._followers) > MAX_STEPS:
            self._followers.popitem(last=False)

    def _end_runs(self, now: float) -> None:
        while self._runs:
            run, (state, at) = next(iter(self._runs.items()))
            if now - at < self.run_s:
                return
            del self._runs[run]
            self._add_follower(state, "")


def _learn(hours: dict[int, float], hour: int, count: float) -> None:
    at = hour % WEEK_H
    before = hours.get(at)
    hours[at] = round(count if before is None else before + SMOOTHING * (count - before), 3)


def _from_profile(hours: Mapping[int, float], now: float, horizon_s: float) -> float | None:
    """The usual arrivals within the horizon; None if none of its hours is known."""
    found, known = 0.0, False
    at = now
    while at < now + horizon_s:
        hour = int(at // HOUR_S)
        until = min((hour + 1) * HOUR_S, now + horizon_s)
        usual = _usual_at(hours, hour)
        if usual is not None:
            known = True
            found += usual * (until - at) / HOUR_S
        at = until
    return found if known else None


def _usual_at(hours: Mapping[int, float], hour: int) -> float | None:
    """The arrivals of that hour of the week; if unknown, the average of that hour on the other days."""
    same = hours.get(hour % WEEK_H)
    if same is not None:
        return same
    others = [hours[at] for at in range(hour % DAY_H, WEEK_H, DAY_H) if at in hours]
    return sum(others) / len(others) if others else None
