"""Estimates how long the answers of models are, and how long they take, from earlier answers.

The logarithm of the length of an answer is modelled as the sum of a part of the model, a part of the
question, and an error (two-way random effects). So the length of an answer that was not written follows from
the lengths length of the model and from the lengths of the other answers to the same question: questions on
which voters agree early are short ones.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import exp, log, sqrt
from statistics import NormalDist, fmean

WINDOW = 100
"""About how many of the latest answers count."""
MAX_MODELS = 1_024
"""Pairs of kind and model that are stored; the least recently updated go first."""
DEFAULT_SPREAD = 0.5
"""Standard deviation of the logarithm of a length before any answer was measured."""
DEFAULT_QUESTION_VARIANCE = 0.25
"""Variance among questions before any was measured."""
MIN_VARIANCE = 0.01
VARIANCE_PRIOR_WEIGHT = 4
"""How many answers the initial value of a variance counts as."""
MAX_LOG_LENGTH = 20.0
"""Upper limit of the logarithm of an expected length, which is about 500 million tokens."""
MAX_RATIO = 50.0
"""Upper limit of the ratio of an answer's length to its expected length."""
MIN_ANSWERS = 5
"""Answers that are needed before the duration of a model is estimated."""
LATE_Z, LATE_FACTOR, LATE_MIN_S = 1.645, 1.5, 1.0
"""An answer is late after 1.5 times the seconds that 95 % of its model's answers take, and after one second
at the earliest."""
_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True)
class AnswerLength:
    """The length and duration of one complete answer."""

    tokens: int
    seconds: float


@dataclass(frozen=True, slots=True)
class _QuestionEffect:
    """What a question adds to the logarithm of an answer's length, with the variance of that estimate."""

    mean: float
    variance: float


@dataclass(slots=True)
class _ModelLengths:
    """Running estimates for one model at one kind of question."""

    answers: int = 0
    tokens: float = 0.0
    """Mean logarithm of the length, without the effect of the question."""
    variance: float = DEFAULT_SPREAD**2 / 2
    """Variance of that logarithm."""
    ratio: float = 1.0
    """Mean ratio of the length of an answer to its expected length. It corrects the normal distribution of
    logarithms, which is wrong for long answers."""
    seconds: float = 0.0
    """Mean logarithm of the duration."""
    seconds_variance: float = DEFAULT_SPREAD**2
    """Variance of the logarithm of the duration."""

    def learn(self, answer: AnswerLength, question: _QuestionEffect, others: _QuestionEffect) -> None:
        """Add an answer. `question` is the effect estimated from all answers, `others` that from the other
        models' answers alone."""
        self.answers += 1
        share, slow = 1 / min(self.answers, WINDOW), 1 / min(self.answers + VARIANCE_PRIOR_WEIGHT, WINDOW)
        tokens, seconds = log(max(answer.tokens, 1)), log(max(answer.seconds, 1e-3))
        if self.answers == 1:
            self.tokens, self.seconds = tokens - question.mean, seconds
            return
        ratio = min(MAX_RATIO, answer.tokens / self.expected(others))
        self.ratio += share * (ratio - self.ratio)
        error = tokens - question.mean - self.tokens
        self.tokens += share * error
        self.variance += slow * (error * error + question.variance - self.variance)
        self.variance = max(MIN_VARIANCE, self.variance)
        delay = seconds - self.seconds
        self.seconds += share * delay
        self.seconds_variance += share * (delay * delay - self.seconds_variance)

    def expected(self, question: _QuestionEffect) -> float:
        """Return the expected length of its answer to a question of that effect, in tokens."""
        centre = self.tokens + question.mean + (self.variance + question.variance) / 2
        return exp(min(centre, MAX_LOG_LENGTH)) * (1 + self.ratio) / 2


class AnswerLengths:
    """Estimates for all models by kind of question. All runs of a process share one instance."""

    def __init__(self) -> None:
        self._lengths: dict[tuple[str, str], _ModelLengths] = {}
        self._questions: dict[str, tuple[int, float]] = {}
        """By kind: the number of questions, and the variance among them."""

    def learn(self, kind: str, complete: Mapping[str, Sequence[AnswerLength]]) -> None:
        """Add the complete answers of each model to one question."""
        question = self._question(kind, complete)
        effects = {
            model: self._question(kind, {other: complete[other] for other in complete if other != model})
            for model in complete
        }
        for model, answers in complete.items():
            lengths = self._lengths.pop((kind, model), None) or _ModelLengths()
            for answer in answers:
                lengths.learn(answer, question, effects[model])
            self._lengths[kind, model] = lengths
        count, variance = self._questions.get(kind, (0, DEFAULT_QUESTION_VARIANCE))
        share = 1 / min(count + 1 + VARIANCE_PRIOR_WEIGHT, WINDOW)
        variance += share * (question.mean**2 + question.variance - variance)
        self._questions[kind] = count + 1, max(MIN_VARIANCE, variance)
        while len(self._lengths) > MAX_MODELS:
            self._lengths.pop(next(iter(self._lengths)))

    def remaining(
        self, kind: str, model: str, complete: Mapping[str, Sequence[AnswerLength]], so_far: int
    ) -> float:
        """Return how many tokens a model is expected to write after the first `so_far`, given the complete
        answers of other models to the same question. For an unknown model the lengths of those answers are
        used."""
        lengths = self._lengths.get((kind, model))
        if lengths is None or lengths.answers < 2:
            tokens = [answer.tokens for answers in complete.values() for answer in answers]
            return _beyond(max(fmean(tokens), 1.0), DEFAULT_SPREAD, so_far) if tokens else 0.0
        question = self._question(kind, complete)
        return _beyond(lengths.expected(question), sqrt(lengths.variance + question.variance), so_far)

    def late_after_s(self, kind: str, model: str) -> float | None:
        """Return the seconds after which an answer is late, or None with fewer than `MIN_ANSWERS` measured
        answers."""
        lengths = self._lengths.get((kind, model))
        if lengths is None or lengths.answers < MIN_ANSWERS:
            return None
        return max(LATE_MIN_S, LATE_FACTOR * exp(lengths.seconds + LATE_Z * sqrt(lengths.seconds_variance)))

    def expected(self, kind: str, model: str) -> float | None:
        """Return the mean tokens of an answer, or None if no answer of the model was measured."""
        lengths = self._lengths.get((kind, model))
        if lengths is None:
            return None
        return lengths.expected(
            _QuestionEffect(0.0, self._questions.get(kind, (0, DEFAULT_QUESTION_VARIANCE))[1])
        )

    def _question(self, kind: str, complete: Mapping[str, Sequence[AnswerLength]]) -> _QuestionEffect:
        """Estimate the effect of a question from the answers of models with at least two earlier ones."""
        precision, total = 1 / self._questions.get(kind, (0, DEFAULT_QUESTION_VARIANCE))[1], 0.0
        for model, answers in complete.items():
            lengths = self._lengths.get((kind, model))
            if lengths is None or lengths.answers < 2:
                continue
            for answer in answers:
                precision += 1 / lengths.variance
                total += (log(max(answer.tokens, 1)) - lengths.tokens) / lengths.variance
        return _QuestionEffect(total / precision, 1 / precision)


def _beyond(mean: float, spread: float, so_far: int) -> float:
    """Return the expected length beyond `so_far` of an answer that is longer than that, if lengths are
    log-normal with this mean and spread."""
    if so_far <= 0:
        return mean
    edge = (log(so_far) - log(mean) + spread * spread / 2) / spread
    above = 1 - _NORMAL.cdf(edge)
    if above < 1e-6:
        return spread * so_far
    return max(0.0, mean * (1 - _NORMAL.cdf(edge - spread)) / above - so_far)
