"""What a user's word counts: a thousand words of one caller neither outweigh nor wipe out those of others.

The first words of a caller count whole. Beyond that they only take the place of words that the caller gave
before, and slower the more of the record is others' words: so who alone gives feedback, such as everybody
where callers have no keys, is heard for ever, and who floods the record of others changes next to nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from orchestration.trust.counts import DISCOUNT

MAX_CALLERS = 64
MAX_RATINGS, MIN_RATINGS = 75.0, 25.0
"""Words of one caller that count whole: 75 of who is alone, two fewer for each word of others, and 25 at
least."""
OWN_SHARE_POWER = 4
"""A word beyond that ages the record by the share of it that is the caller's own, to this power. With 4, a
thousand words of one caller leave at least three quarters of a hundred words of others."""

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class CallerRating:
    """`weight` is what the word counts, from 0 to 1; `discount` the share of all earlier ones that still
    counts; `callers` are the words of each caller that count, with this one."""

    weight: float
    discount: float
    callers: dict[str, float]


def rating_of(caller: str, callers: Mapping[str, float], *, again: bool) -> CallerRating:
    """`again` says that the word replaces an earlier one on the same run: it ages nothing, and counts as a
    word all the same, so that nobody gets round the limit by taking words back."""
    own = callers.get(caller, 0.0)
    others = max(0.0, sum(callers.values()) - own)
    limit = max(MIN_RATINGS, MAX_RATINGS - 2 * others)
    weight = age = 1.0
    if own >= limit:
        age = (limit / (limit + others)) ** OWN_SHARE_POWER
        weight = (1 - DISCOUNT) * limit * age
    discount = 1.0 if again else DISCOUNT**age
    after = {name: discount * words for name, words in callers.items() if name != caller}
    after[caller] = discount * own + weight
    return CallerRating(weight, discount, latest(after, MAX_CALLERS))


def latest(values: Mapping[str, _Value], most: int) -> dict[str, _Value]:
    """Not more than `most` of them, the first ones going first: who changes one puts it last."""
    names = list(values)[-most:]
    return {name: values[name] for name in names}
