"""Tokens of one request: reserved before it begins, settled when it has ended."""

from __future__ import annotations

import time

from orchestration.admission import Limits, Reservation
from orchestration.messages import Chunk, Ended, Event, Generation, Run

_BYTES_A_TOKEN = 4
"""Of English text; only an estimate for the reservation, what counts in the end is what the node reports."""
_FRAME_TOKENS = 4
"""The template around each message."""


class Meter:
    """Reserves at once. Raises `OverLimit` or `TooManyTokens`."""

    __slots__ = ("_ended", "_limits", "_prompt", "_reservation", "_seen")

    def __init__(self, limits: Limits, caller: str, work: Generation | Run, assumed_tokens: int) -> None:
        self._limits = limits
        self._prompt = prompt_tokens(work)
        self._seen = 0
        self._ended: int | None = None
        self._reservation: Reservation | None = None
        now = time.monotonic()
        most = limits.most_tokens(caller, now)
        if most is not None:
            answer = answer_tokens(work, min(assumed_tokens, max(1, most - self._prompt)))
            self._reservation = limits.reserve(caller, self._prompt + answer, now)

    @property
    def limited(self) -> bool:
        """Whether anybody counts; if not, `saw` and `settle` need not be called."""
        return self._reservation is not None

    def saw(self, event: Event) -> None:
        """Note one event of the answer."""
        if isinstance(event, Chunk):
            self._seen += event.tokens
        elif isinstance(event, Ended):
            self._ended = event.usage.prompt_tokens + event.usage.completion_tokens

    def settle(self) -> None:
        """Count what the node reported, or what was seen of an answer that was cut short."""
        if self._reservation is not None:
            partly = self._prompt + self._seen if self._seen else 0
            self._reservation.settle(partly if self._ended is None else self._ended, time.monotonic())


def prompt_tokens(work: Generation | Run) -> int:
    """An estimate: nobody has tokenised it yet."""
    texts, ids = [message.content for message in work.messages], 0
    if isinstance(work, Generation):
        texts += [*work.inputs, work.prompt, work.prefill]
        ids = len(work.prompt_ids)
    return ids + sum(len(text.encode()) // _BYTES_A_TOKEN + _FRAME_TOKENS for text in texts if text)


def answer_tokens(work: Generation | Run, assumed: int) -> int:
    """The most that the answer can take, `assumed` where that was not said."""
    if isinstance(work, Generation) and work.kind == "embedding":
        return 0
    return work.sampling.max_tokens or assumed
