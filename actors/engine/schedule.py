"""Whose prompt is read next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Prefilling(Protocol):
    """A generation whose prompt is being read."""

    @property
    def unread(self) -> int:
        """Tokens still to read."""


def next_to_prefill(prefilling: Sequence[Prefilling], turn: int) -> int:
    """The index of the generation that reads the next chunk of its prompt.

    `prefilling` is in order of arrival. Every other turn goes to the one with the least left to read,
    so a short prompt passes a long one; the turns between go to the oldest, so a long prompt goes on at
    half speed at worst. Raises ValueError if there is none.
    """
    if not prefilling:
        raise ValueError("nothing to prefill")
    if turn % 2:
        return 0
    return min(range(len(prefilling)), key=lambda at: (prefilling[at].unread, at))


def allowance(budget: int, spent: int, unread: int) -> int:
    """How many prompt tokens this step may compute, `spent` so far, if next comes a prompt with `unread`.

    The double of `budget` lets a prompt of ordinary length end within the step in which it began, so
    that its first token does not wait for the others' next one.
    """
    return 2 * budget if spent + unread <= 2 * budget else budget
