"""Estimates how long agents take for a task."""

from __future__ import annotations

PRIOR_S = 5.0
"""The estimate before anything was measured. Only the order of the estimates matters, so any value works."""
KEEP = 0.8
"""The weight of the previous average at a new measurement: about the latest five count."""
MAX_AVERAGES = 256
"""Averages that are stored; the least recently updated go first."""


class Durations:
    """Exponential averages of seconds, by agent and by agent and model. All runs of a process share one
    instance, so the first tasks of a run are ordered by the durations of earlier runs."""

    def __init__(self) -> None:
        self._averages: dict[tuple[str, str], float] = {}

    def learn(self, agent: str, model: str, seconds: float) -> None:
        """Add the duration of a task of `agent` on `model`."""
        for key in ((agent, model), (agent, "")):
            average = self._averages.pop(key, seconds)
            self._averages[key] = average + (1 - KEEP) * (seconds - average)
        while len(self._averages) > MAX_AVERAGES:
            self._averages.pop(next(iter(self._averages)))

    def expected(self, agent: str, model: str | None = None) -> float:
        """Return the expected seconds of a task of `agent`, on `model` if that was measured. For an agent
        without measurements it is the mean of the other agents."""
        for key in ((agent, model or ""), (agent, "")):
            if key in self._averages:
                return self._averages[key]
        others = [average for (_, name), average in self._averages.items() if not name]
        return sum(others) / len(others) if others else PRIOR_S
