"""How much models write, and how long they take, as far as it was measured.

The logarithm of an answer's length is taken to be a part that is the model's and one that is the question's
(two-way additive model), with an error whose spread is the model's too. So what a model would have written
that was not asked follows from what it writes mostly, and from how long the others' answers to the same
question are: questions on which voters agree soon are short ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import NormalDist, fmean

LATEST = 100
"""Answers that count, about."""
MOST_MODELS = 1_024
"""Pairs of kind and model kept; the oldest go."""
SPREAD = 0.5
"""Standard deviation of the logarithm of a length, until it was measured."""
KNOWN = 5
"""Answers from which a model's time is known."""
LATE_Z, LATE_FACTOR, LATE_LEAST_S = 1.645, 1.5, 1.0
"""An answer is late after 1.5 times what 95 % of its model's take, and not within a second."""
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class Written:
    """One answer, whole."""

    tokens: int
    seconds: float


@dataclass(slots=True)
class _Usual:
    """Of one model at one kind of question, in logarithms. `whole` corrects the mean: a mean of logarithms
    says little of the long ones."""

    answers: int = 0
    tokens: float = 0.0
    variance: float = SPREAD**2
    ratio: float = 1.0
    seconds: float = 0.0
    seconds_variance: float = SPREAD**2

    def learn(self, tokens: float, question: float, written: Written) -> None:
        """From an answer of so many tokens, as a logarithm, to a question that makes answers `question`
        longer."""
        self.answers += 1
        share = 1 / min(self.answers, LATEST)
        seconds = log(max(written.seconds, 1e-3))
        if self.answers == 1:
            self.tokens, self.seconds = tokens - question, seconds
            return
        error = tokens - question - self.tokens
        self.ratio += share * (exp(min(2.0, error)) - self.ratio)
        self.tokens += share * error
        self.variance += share * (error * error - self.variance)
        late = seconds - self.seconds
        self.seconds += share * late
        self.seconds_variance += share * (late * late - self.seconds_variance)


class AnswerLengths:
    """Of all models, by kind of question. One is shared by all runs of a process."""

    def __init__(self) -> None:
        self._usual: dict[tuple[str, str], _Usual] = {}

    def learn(self, kind: str, ended: Mapping[str, Sequence[Written]]) -> None:
        """What each model wrote to its end, of one question."""
        question = self._question(kind, ended)
        for model, answers in ended.items():
            for written in answers:
                usual = self._usual.pop((kind, model), None) or _Usual()
                usual.learn(log(max(written.tokens, 1)), question, written)
                self._usual[kind, model] = usual
        while len(self._usual) > MOST_MODELS:
            self._usual.pop(next(iter(self._usual)))

    def left(self, kind: str, model: str, ended: Mapping[str, Sequence[Written]], so_far: int) -> float:
        """Tokens that a model which has written `so_far` would still write, where others wrote `ended` to the
        same question. Of one that is not known, what these let one expect."""
        usual = self._usual.get((kind, model))
        if usual is None or usual.answers < 2:
            lengths = [written.tokens for answers in ended.values() for written in answers]
            return _beyond(log(max(fmean(lengths), 1.0)) - SPREAD**2 / 2, SPREAD, so_far) if lengths else 0.0
        centre = usual.tokens + self._question(kind, ended) + log(max(usual.ratio, 0.1)) - usual.variance / 2
        return _beyond(centre, sqrt(usual.variance), so_far)

    def slowest_s(self, kind: str, model: str) -> float | None:
        """Seconds after which an answer is late; None where too few were measured."""
        usual = self._usual.get((kind, model))
        if usual is None or usual.answers < KNOWN:
            return None
        return max(LATE_LEAST_S, LATE_FACTOR * exp(usual.seconds + LATE_Z * sqrt(usual.seconds_variance)))

    def expected(self, kind: str, model: str) -> float | None:
        """Tokens of an answer, on average; None where none was measured."""
        usual = self._usual.get((kind, model))
        return None if usual is None else exp(usual.tokens) * max(usual.ratio, 0.1)

    def _question(self, kind: str, ended: Mapping[str, Sequence[Written]]) -> float:
        """How much longer, as a logarithm, the answers to this question are than their models' mostly are."""
        found = [
            log(max(written.tokens, 1)) - usual.tokens
            for model, answers in ended.items()
            if (usual := self._usual.get((kind, model))) is not None and usual.answers >= 2
            for written in answers
        ]
        return sum(found) / (len(found) + 1) if found else 0.0


def _beyond(centre: float, spread: float, so_far: int) -> float:
    """The mean of what a log-normal length that is more than `so_far` has beyond that."""
    mean = exp(centre + spread * spread / 2)
    if so_far <= 0:
        return mean
    edge = (log(so_far) - centre) / spread
    above = 1 - _NORMAL.cdf(edge)
    if above < 1e-6:
        return spread * so_far
    return max(0.0, mean * (1 - _NORMAL.cdf(edge - spread)) / above - so_far)
