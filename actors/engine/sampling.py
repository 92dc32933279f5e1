"""Sampling of the next token."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from actors.engine.settings import EngineSettings
from orchestration.messages import Sampling

Logits = NDArray[np.float32]

_NEAR = (5.0, 8.0, 11.0)
"""Distances below the likeliest token (in nats) in which the candidates of top-p are searched first. Sorting
a few of them instead of the whole vocabulary takes 0.1 ms per token instead of 4."""

_FAR = 20.0
"""Tokens this far (in nats) below the likeliest weigh less than 1e-4 together."""

_FEW = 8192

_MIX = (0xD1342543DE82EF95, 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingPlan:
    """The sampling parameters of one generation, with all defaults filled in."""

    temperature: float
    """0: always the likeliest token."""
    top_p: float = 1.0
    """Probability of the smallest set of tokens to choose from; 1: all."""
    top_k: int = 0
    """Number of the likeliest tokens to choose from; 0: all."""
    repetition_penalty: float = 1.0
    """Factor for tokens of prompt and answer; 1: none."""
    frequency_penalty: float = 0.0
    """Penalty for each time that a token is in the answer."""
    presence_penalty: float = 0.0
    """Penalty for tokens that are in the answer."""
    min_p: float = 0.0
    """Minimum probability, relative to that of the likeliest token; 0: none."""
    logprobs: int | None = None
    """Alternatives to report with each token; None: no log probabilities."""

    @classmethod
    def of(cls, sampling: Sampling, settings: EngineSettings) -> SamplingPlan:
        def or_default(value: float | None, default: float) -> float:
            return default if value is None else value

        return cls(
            temperature=or_default(sampling.temperature, settings.default_temperature),
            top_p=or_default(sampling.top_p, settings.default_top_p if sampling.temperature is None else 1.0),
            top_k=sampling.top_k or 0,
            repetition_penalty=or_default(sampling.repetition_penalty, 1.0),
            frequency_penalty=or_default(sampling.frequency_penalty, 0.0),
            presence_penalty=or_default(sampling.presence_penalty, 0.0),
            min_p=or_default(sampling.min_p, 0.0),
            logprobs=sampling.top_logprobs if sampling.logprobs or sampling.top_logprobs else None,
        )

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def penalised(self) -> bool:
        return (self.repetition_penalty, self.frequency_penalty, self.presence_penalty) != (1.0, 0.0, 0.0)


class Penalties:
    """Counts the tokens of a generation and lowers their logits.

    Repetition divides positive and multiplies negative logits of every token of prompt and answer
    (CTRL, arXiv 1909.05858); frequency and presence are OpenAI's: they count the answer alone.
    """

    __slots__ = ("_context", "_counts", "_plan")

    def __init__(self, plan: SamplingPlan, prompt: NDArray[np.int64]) -> None:
        self._plan = plan
        self._context = np.unique(prompt)
        self._counts: dict[int, int] = {}

    def add(self, token: int) -> None:
        """Count `token`."""
        self._counts[token] = self._counts.get(token, 0) + 1
        at = int(np.searchsorted(self._context, token))
        if at == len(self._context) or self._context[at] != token:
            self._context = np.insert(self._context, at, token)

    def apply(self, logits: Logits) -> None:
        """Lower `logits` [vocabulary] in place."""
        plan = self._plan
        if plan.repetition_penalty != 1.0:
            values = logits[self._context]
            factor = np.float32(plan.repetition_penalty)
            logits[self._context] = np.where(values > 0, values / factor, values * factor)
        if self._counts and (plan.frequency_penalty or plan.presence_penalty):
            tokens = np.fromiter(self._counts.keys(), np.int64, len(self._counts))
            counts = np.fromiter(self._counts.values(), np.float32, len(self._counts))
            logits[tokens] -= counts * plan.frequency_penalty + plan.presence_penalty


def greedy(logits: Logits) -> NDArray[np.int64]:
    """The likeliest token of each row of `logits` [rows, vocabulary]; of equals the lowest id."""
    best: NDArray[np.int64] = logits.argmax(axis=1)
    return best


def draw(logits: Logits, plan: SamplingPlan, generator: np.random.Generator) -> int:
    """A random token from `logits` [vocabulary], with exactly one number from `generator`.

    In this order: temperature; tokens of at least `min_p` times the likeliest's probability (arXiv
    2407.01082); the `top_k` likeliest; the smallest set with at least `top_p` of the remaining probability
    (nucleus sampling, arXiv 1904.09751). Equal logits keep the order of ids.
    """
    point = generator.random()
    scaled = (logits - logits.max()) * np.float32(1 / plan.temperature)
    if plan.min_p > 0:
        scaled[scaled < np.log(plan.min_p)] = -np.inf
    if 0 < plan.top_k < len(scaled):
        ids = _top(scaled, plan.top_k)
        weights = np.exp(scaled[ids], dtype=np.float64)
        if plan.top_p < 1:
            count = _cut(weights, plan.top_p * weights.sum())
            ids, weights = ids[:count], weights[:count]
    elif plan.top_p < 1:
        ids, weights = _nucleus(scaled, plan.top_p)
    else:
        return _draw_from_all(scaled, point)
    return int(ids[_race(ids, weights, point)])


def log_probabilities(logits: Logits) -> Logits:
    """Natural-log softmax of `logits` [vocabulary]."""
    shifted = logits - logits.max()
    table: Logits = shifted - np.float32(np.log(np.exp(shifted).sum(dtype=np.float64)))
    return table


def top_ids(values: Logits, count: int) -> NDArray[np.int64]:
    """The ids of the `count` largest `values` [vocabulary], largest first."""
    return _top(values, min(count, len(values))) if count else np.empty(0, np.int64)


def _top(values: Logits, count: int) -> NDArray[np.int64]:
    """Ids of the `count` largest, largest first, equals by id (also at the cut)."""
    threshold = np.partition(values, len(values) - count)[len(values) - count]
    ids = np.flatnonzero(values >= threshold)
    return ids[np.argsort(-values[ids], kind="stable")][:count]


def _mass(scaled: Logits) -> float:
    """Sum of the exponentials; negligible ones are skipped where that saves work."""
    some = scaled >= -_FAR
    if np.count_nonzero(some) <= _FEW:
        scaled = scaled[some]
    return float(np.exp(scaled).sum())


def _nucleus(scaled: Logits, top_p: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    target = top_p * _mass(scaled)
    for depth in (*_NEAR, np.inf):
        ids = np.flatnonzero(scaled >= -depth)
        weights = np.exp(scaled[ids], dtype=np.float64)
        if weights.sum() >= target:
            break
    order = np.argsort(-scaled[ids], kind="stable")
    ids, weights = ids[order], weights[order]
    count = _cut(weights, target)
    return ids[:count], weights[:count]


def _cut(weights: NDArray[np.float64], target: float) -> int:
    """How many of the sorted `weights` are needed to reach `target`, at least one."""
    return min(int(np.searchsorted(np.cumsum(weights), target)) + 1, len(weights))


def _draw_from_all(scaled: Logits, point: float) -> int:
    """As `_race` over all tokens. The unlikely ones take part as one, and among themselves if that one
    wins."""
    weights = np.exp(scaled)
    likely = scaled >= -_NEAR[1]
    near, far = np.flatnonzero(likely), np.flatnonzero(~likely)
    together = weights[far].sum(dtype=np.float64)
    runners = np.append(near, len(scaled))
    won = _race(runners, np.append(weights[near].astype(np.float64), together), point)
    if won < len(near):
        return int(near[won])
    return int(far[_race(far, weights[far].astype(np.float64), point)])


def _race(ids: NDArray[np.int64], weights: NDArray[np.float64], point: float) -> int:
    """A position drawn by `weights`: the maximum of weight / exponential variate (an exponential race).

    The variates come from `point` and the token's id (SplitMix64). So tiny changes of the logits (another
    batch or processor) change the token only if two are almost equal. In a cumulative sum they would shift
    the boundaries of all later tokens.
    """
    start = np.uint64(int(point * 2**53) * _MIX[0] % 2**64)
    mixed = ids.astype(np.uint64) * np.uint64(_MIX[1]) + start
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(_MIX[2])
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(_MIX[3])
    uniform = (((mixed ^ (mixed >> np.uint64(31))) >> np.uint64(12)) + 0.5) / 2**52
    return int(np.argmax(weights / -np.log(uniform)))
