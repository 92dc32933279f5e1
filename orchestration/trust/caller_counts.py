"""How much a user rating counts, so that one caller with many ratings cannot outweigh the others.

The first ratings of a caller count fully. Later ones mostly replace earlier ratings of the same caller, and
the more of the record comes from others, the less they change it. So a caller who is alone, as everyone is
where callers have no keys, keeps its influence, and one who floods the record of others hardly changes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from orchestration.trust.counts import DISCOUNT

MAX_CALLERS = 64
"""Callers whose ratings are counted separately; the least recent ones are dropped first."""
MAX_RATINGS, MIN_RATINGS = 75.0, 25.0
"""Ratings of one caller that count fully: 75 for a caller who is alone, two fewer for each rating of others,
and at least 25."""
OWN_SHARE_POWER = 4
"""A further rating discounts the record by the caller's own share of it, to this power. With 4, a thousand
ratings of one caller leave at least three quarters of a hundred ratings of others."""

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class CallerRating:
    """What one rating counts, and what it leaves of the earlier ones."""

    weight: float
    """What the rating counts, from 0 to 1."""
    discount: float
    """The factor by which all earlier observations are multiplied."""
    callers: dict[str, float]
    """The ratings of each caller that count, this one included."""


def rating_of(caller: str, callers: Mapping[str, float], *, is_update: bool) -> CallerRating:
    """Return what a rating of `caller` counts. `callers` are the ratings of each caller that count so far.

    `is_update` is True if the rating replaces an earlier one on the same run. Such a rating does not discount
    the record, but it counts as a rating of the caller, so that changing ratings does not avoid the limit."""
    own = callers.get(caller, 0.0)
    others = max(0.0, sum(callers.values()) - own)
    limit = max(MIN_RATINGS, MAX_RATINGS - 2 * others)
    weight = aging = 1.0
    if own >= limit:
        aging = (limit / (limit + others)) ** OWN_SHARE_POWER
        weight = (1 - DISCOUNT) * limit * aging
    discount = 1.0 if is_update else DISCOUNT**aging
    ratings = {name: discount * count for name, count in callers.items() if name != caller}
    ratings[caller] = discount * own + weight
    return CallerRating(weight, discount, latest(ratings, MAX_CALLERS))


def latest(values: Mapping[str, _Value], limit: int) -> dict[str, _Value]:
    """Return the last `limit` entries. Callers move a changed entry to the end, so the least recent ones
    go."""
    names = list(values)[-limit:]
    return {name: values[name] for name in names}
