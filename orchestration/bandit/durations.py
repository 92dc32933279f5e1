"""How long agents take for a task, as far as it was measured."""

from __future__ import annotations

PRIOR_S = 5.0
"""What a task takes while nothing was measured. Only how the tasks compare counts, so any figure does."""
KEEP = 0.8
"""Of the average so far at each new measurement: about the latest five count."""
MAX_AVERAGES = 256
"""Averages kept; the oldest go."""


class Durations:
    """Exponential averages of seconds, by agent and by agent and model. One is shared by all runs of a
    process, so that the first tasks of a run are put in order by what earlier runs took."""

    def __init__(self) -> None:
        self._averages: dict[tuple[str, str], float] = {}

    def learn(self, agent: str, model: str, seconds: float) -> None:
        """A task of `agent` took so long on `model`."""
        for key in ((agent, model), (agent, "")):
            average = self._averages.pop(key, seconds)
            self._averages[key] = average + (1 - KEEP) * (seconds - average)
        while len(self._averages) > MAX_AVERAGES:
            self._averages.pop(next(iter(self._averages)))

    def expected(self, agent: str, model: str | None = None) -> float:
        """Seconds for a task of `agent`, on `model` where that was measured; of an agent that was not, what
        the others take on average."""
        for key in ((agent, model or ""), (agent, "")):
            if key in self._averages:
                return self._averages[key]
        others = [average for (_, on), average in self._averages.items() if not on]
        return sum(others) / len(others) if others else PRIOR_S
