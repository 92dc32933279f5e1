"""The order in which prompts are prefilled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Prefilling(Protocol):
    """A generation that is being prefilled."""

    @property
    def unread(self) -> int:
        """Remaining prompt tokens."""


def next_to_prefill(prefilling: Sequence[Prefilling], turn: int) -> int:
    """The index of the generation that prefills its next chunk.

    `prefilling` is in order of arrival. Even turns go to the one with the fewest remaining tokens, so that a
    short prompt overtakes a long one; odd turns go to the oldest, which is slowed to half speed at worst.
    Raises ValueError if the list is empty.
    """
    if not prefilling:
        raise ValueError("nothing to prefill")
    if turn % 2:
        return 0
    return min(range(len(prefilling)), key=lambda at: (prefilling[at].unread, at))


def allowance(budget: int, spent: int, unread: int) -> int:
    """The maximum prompt tokens of a step that has computed `spent`, before a prompt with `unread` tokens.

    Twice the `budget` if that completes the prompt, so that its first token need not wait for the next step.
    """
    return 2 * budget if spent + unread <= 2 * budget else budget
