"""How much models write, and how long they take, as far as it was measured.

The logarithm of an answer's length is taken to be a part that is the model's, one that is the question's, and
an error (two-way random effects). So what a model would have written that was not asked follows from what it
writes mostly, and from how long the others' answers to the same question are: questions on which voters agree
soon are short ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import NormalDist, fmean

WINDOW = 100
"""Answers that count, about."""
MAX_MODELS = 1_024
"""Pairs of kind and model kept; the oldest go."""
DEFAULT_SPREAD = 0.5
"""Standard deviation of the logarithm of a length, until it was measured."""
DEFAULT_QUESTION_VARIANCE = 0.25
"""Variance among questions, until it was measured."""
MIN_VARIANCE = 0.01
VARIANCE_PRIOR_WEIGHT = 4
"""Answers that what is thought beforehand of a variance counts as."""
MAX_LOG_LENGTH = 20.0
"""Of a length that is expected: half a thousand million tokens."""
MAX_RATIO = 50.0
"""Times its expected length that a long answer counts."""
MIN_ANSWERS = 5
"""Answers from which a model's time is known."""
LATE_Z, LATE_FACTOR, LATE_MIN_S = 1.645, 1.5, 1.0
"""An answer is late after 1.5 times what 95 % of its model's take, and not within a second."""
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class AnswerLength:
    """One answer, whole."""

    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _QuestionEffect:
    """What a question adds to the logarithm of an answer's length, and how surely that is known."""

    mean: float
    variance: float


@dataclass(slots=True)
class _ModelLengths:
    """Of one model at one kind of question, in logarithms. `ratio` is how long its answers were, of what was
    expected of them: a normal distribution of logarithms says too little, or too much, of the long ones."""

    answers: int = 0
    tokens: float = 0.0
    variance: float = DEFAULT_SPREAD**2 / 2
    ratio: float = 1.0
    seconds: float = 0.0
    seconds_variance: float = DEFAULT_SPREAD**2

    def learn(self, written: AnswerLength, question: _QuestionEffect, others: _QuestionEffect) -> None:
        """From an answer to a question of that effect, and of that by the other answers alone."""
        self.answers += 1
        share, slow = 1 / min(self.answers, WINDOW), 1 / min(self.answers + VARIANCE_PRIOR_WEIGHT, WINDOW)
        tokens, seconds = log(max(written.tokens, 1)), log(max(written.seconds, 1e-3))
        if self.answers == 1:
            self.tokens, self.seconds = tokens - question.mean, seconds
            return
        ratio = min(MAX_RATIO, written.tokens / self.expected(others))
        self.ratio += share * (ratio - self.ratio)
        error = tokens - question.mean - self.tokens
        self.tokens += share * error
        self.variance += slow * (error * error + question.variance - self.variance)
        self.variance = max(MIN_VARIANCE, self.variance)
        late = seconds - self.seconds
        self.seconds += share * late
        self.seconds_variance += share * (late * late - self.seconds_variance)

    def expected(self, question: _QuestionEffect) -> float:
        """The mean length of its answers to a question of that effect."""
        centre = self.tokens + question.mean + (self.variance + question.variance) / 2
        return exp(min(centre, MAX_LOG_LENGTH)) * (1 + self.ratio) / 2


class AnswerLengths:
    """Of all models, by kind of question. One is shared by all runs of a process."""

    def __init__(self) -> None:
        self._usual: dict[tuple[str, str], _ModelLengths] = {}
        self._questions: dict[str, tuple[int, float]] = {}
        """By kind: how many were seen, and the variance among them."""

    def learn(self, kind: str, ended: Mapping[str, Sequence[AnswerLength]]) -> None:
        """What each model wrote to its end, of one question."""
        question = self._question(kind, ended)
        effects = {
            model: self._question(kind, {other: ended[other] for other in ended if other != model})
            for model in ended
        }
        for model, answers in ended.items():
            usual = self._usual.pop((kind, model), None) or _ModelLengths()
            for written in answers:
                usual.learn(written, question, effects[model])
            self._usual[kind, model] = usual
        seen, variance = self._questions.get(kind, (0, DEFAULT_QUESTION_VARIANCE))
        share = 1 / min(seen + 1 + VARIANCE_PRIOR_WEIGHT, WINDOW)
        variance += share * (question.mean**2 + question.variance - variance)
        self._questions[kind] = seen + 1, max(MIN_VARIANCE, variance)
        while len(self._usual) > MAX_MODELS:
            self._usual.pop(next(iter(self._usual)))

    def left(self, kind: str, model: str, ended: Mapping[str, Sequence[AnswerLength]], so_far: int) -> float:
        """Tokens that a model which has written `so_far` would still write, where others wrote `ended` to the
        same question. Of one that is not known, what these let one expect."""
        usual = self._usual.get((kind, model))
        if usual is None or usual.answers < 2:
            lengths = [written.tokens for answers in ended.values() for written in answers]
            return _beyond(max(fmean(lengths), 1.0), DEFAULT_SPREAD, so_far) if lengths else 0.0
        question = self._question(kind, ended)
        return _beyond(usual.expected(question), sqrt(usual.variance + question.variance), so_far)

    def slowest_s(self, kind: str, model: str) -> float | None:
        """Seconds after which an answer is late; None where too few were measured."""
        usual = self._usual.get((kind, model))
        if usual is None or usual.answers < MIN_ANSWERS:
            return None
        return max(LATE_MIN_S, LATE_FACTOR * exp(usual.seconds + LATE_Z * sqrt(usual.seconds_variance)))

    def expected(self, kind: str, model: str) -> float | None:
        """Tokens of an answer, on average; None where none was measured."""
        usual = self._usual.get((kind, model))
        if usual is None:
            return None
        return usual.expected(
            _QuestionEffect(0.0, self._questions.get(kind, (0, DEFAULT_QUESTION_VARIANCE))[1])
        )

    def _question(self, kind: str, ended: Mapping[str, Sequence[AnswerLength]]) -> _QuestionEffect:
        """What the question adds, by the answers of models that are known."""
        precision, total = 1 / self._questions.get(kind, (0, DEFAULT_QUESTION_VARIANCE))[1], 0.0
        for model, answers in ended.items():
            usual = self._usual.get((kind, model))
            if usual is None or usual.answers < 2:
                continue
            for written in answers:
                precision += 1 / usual.variance
                total += (log(max(written.tokens, 1)) - usual.tokens) / usual.variance
        return _QuestionEffect(total / precision, 1 / precision)


def _beyond(mean: float, spread: float, so_far: int) -> float:
    """The mean of what a log-normal length of that mean has beyond `so_far`, where it is longer."""
    if so_far <= 0:
        return mean
    edge = (log(so_far) - log(mean) + spread * spread / 2) / spread
    above = 1 - _NORMAL.cdf(edge)
    if above < 1e-6:
        return spread * so_far
    return max(0.0, mean * (1 - _NORMAL.cdf(edge - spread)) / above - so_far)
