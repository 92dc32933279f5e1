"""Counts the answers of a gateway when they end: on every route, streamed or not, however they end."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from prometheus_client import Counter, Histogram

from actors.telemetry.labels import MODELS, OTHER, PATTERNS
from orchestration.messages import Usage

NO_PATTERN = "none"
OUTCOMES = ("ok", "cancelled", "limited", "invalid", "error")

_ANSWERS = Counter(
    "orchestra_gateway_answers",
    "Requests for answers that ended: ok, cancelled (by the caller), limited (at a limit), invalid (the "
    "caller's mistake) or error; code is the code of the error",
    ["protocol", "route", "model", "pattern", "stream", "outcome", "code"],
)
_SECONDS = Histogram(
    "orchestra_gateway_answer_seconds",
    "Time in seconds from the arrival of a request to the end of its answer",
    ["model", "pattern", "stream", "outcome"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600),
)
_FIRST_TOKEN = Histogram(
    "orchestra_gateway_first_token_seconds",
    "Time in seconds from the arrival of a request to the first token of its stream",
    ["model", "pattern"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 30, 60),
)
_TOKEN_SECONDS = Histogram(
    "orchestra_gateway_token_seconds",
    "Time in seconds per token after the first, of complete streams",
    ["model", "pattern"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1),
)
_TOKENS = Counter(
    "orchestra_gateway_tokens",
    "Tokens as the answers state them, those from the cache included; of an answer that was cut, those that "
    "were passed on. `cached` ones are among those of prompts",
    ["model", "pattern", "direction"],
)
_MOVES = Counter(
    "orchestra_gateway_moves",
    "Times that another node or coordinator went on with an answer that a caller waited for",
    ["model", "pattern"],
)


class AnswerLabels(NamedTuple):
    """The labels of an answer. Of a request that was refused before its model was known, it is `other`."""

    model: str = OTHER
    pattern: str = NO_PATTERN
    stream: str = "false"


class _Counters(NamedTuple):
    """The metrics of one kind of answer."""

    first_token: Histogram
    token: Histogram
    prompt: Counter
    completion: Counter
    cached: Counter
    moves: Counter


def labels_of(model: str | None, pattern: str, *, stream: bool) -> AnswerLabels:
    """The labels of an admitted request; `pattern` is '' for a model's own answer. A run that may use any
    model has the label ''."""
    return AnswerLabels(
        MODELS.known(model) if model else "",
        PATTERNS.of(pattern) if pattern else NO_PATTERN,
        "true" if stream else "false",
    )


def outcome_of(status: int) -> str:
    """How a request ended, by the HTTP status of its answer or of its error."""
    if status < 400:
        return "ok"
    if status == 499:
        return "cancelled"
    if status == 429:
        return "limited"
    return "invalid" if status < 500 else "error"


def count_end(route: tuple[str, str], labels: AnswerLabels, code: str, status: int, seconds: float) -> None:
    """Count a request that ended with `status` after `seconds`; `code` is that of its error, or ''. `route`
    is the protocol and the route."""
    outcome = outcome_of(status)
    _answers(*route, labels, outcome, code).inc()
    _seconds(labels, outcome).observe(seconds)


def count_usage(labels: AnswerLabels, usage: Usage, moves: int) -> None:
    """Add what the answer cost."""
    counters = _counters(labels.model, labels.pattern)
    counters.prompt.inc(usage.prompt_tokens)
    counters.completion.inc(usage.completion_tokens)
    if usage.cached_tokens:
        counters.cached.inc(usage.cached_tokens)
    if moves:
        counters.moves.inc(moves)


def count_stream(labels: AnswerLabels, first_s: float, token_s: float | None) -> None:
    """Add the pace of a stream whose first token came after `first_s`; `token_s` is the time per further
    token, if it is complete."""
    counters = _counters(labels.model, labels.pattern)
    counters.first_token.observe(first_s)
    if token_s is not None:
        counters.token.observe(token_s)


@lru_cache(maxsize=4096)
def _answers(protocol: str, route: str, labels: AnswerLabels, outcome: str, code: str) -> Counter:
    return _ANSWERS.labels(protocol, route, *labels, outcome, code)


@lru_cache(maxsize=4096)
def _seconds(labels: AnswerLabels, outcome: str) -> Histogram:
    return _SECONDS.labels(*labels, outcome)


@lru_cache(maxsize=1024)
def _counters(model: str, pattern: str) -> _Counters:
    return _Counters(
        _FIRST_TOKEN.labels(model, pattern),
        _TOKEN_SECONDS.labels(model, pattern),
        _TOKENS.labels(model, pattern, "prompt"),
        _TOKENS.labels(model, pattern, "completion"),
        _TOKENS.labels(model, pattern, "cached"),
        _MOVES.labels(model, pattern),
    )
