"""Counts of handled messages, with the labels of each looked up once: a lookup costs as much as a count."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import Counter, Histogram

from actors.telemetry.telemetry import ACTOR_MESSAGES, ACTOR_SECONDS


@lru_cache(maxsize=4096)
def _count(actor: str, message: str, outcome: str) -> Counter:
    return ACTOR_MESSAGES.labels(actor, message, outcome)


@lru_cache(maxsize=4096)
def _seconds(actor: str, message: str) -> Histogram:
    return ACTOR_SECONDS.labels(actor, message)


def count_message(actor: str, message: str, outcome: str, seconds: float) -> None:
    """Count a handler of `message` that ended with `outcome`: `ok` or the code of an error."""
    _count(actor, message, outcome).inc()
    _seconds(actor, message).observe(seconds)
