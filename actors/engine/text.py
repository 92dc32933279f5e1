"""Turns tokens into the text that leaves the engine."""

from __future__ import annotations

from collections.abc import Sequence

from actors.engine.detokenize import Detokenizer
from actors.engine.stops import StopMatcher
from orchestration.messages import TextDelta, TokenLogprob


class TextStream:
    """The text of one generation: whole characters, without stop strings.

    Tokens whose text is held back (an incomplete character, the beginning of a stop string) leave together
    with their text, and so do their log probabilities. `before` was already sent.
    """

    __slots__ = ("_detokenizer", "_logprobs", "_stops", "_tokens", "stopped")

    def __init__(self, stops: Sequence[str], before: str = "") -> None:
        self._detokenizer = Detokenizer()
        self._stops = StopMatcher(stops, before)
        self._tokens = 0
        self._logprobs: list[TokenLogprob] = []
        self.stopped = False
        """Whether a stop string was completed, so that the generation must end."""

    def push(self, data: bytes, logprob: TokenLogprob | None = None) -> TextDelta | None:
        """The piece that the token with the bytes `data` lets out, if any."""
        self._tokens += 1
        if logprob is not None:
            self._logprobs.append(logprob)
        text, self.stopped = self._stops.push(self._detokenizer.push(data))
        return self._piece(text) if text else None

    def flush(self) -> TextDelta | None:
        """The text held back, at the end of a generation that no stop string ended."""
        if self.stopped:
            return None
        text, self.stopped = self._stops.push(self._detokenizer.flush())
        if not self.stopped:
            text += self._stops.flush()
        return self._piece(text) if self._tokens or text else None

    def _piece(self, text: str) -> TextDelta:
        piece = TextDelta(
            text=text, tokens=self._tokens, logprobs=tuple(self._logprobs) if self._logprobs else None
        )
        self._tokens = 0
        self._logprobs = []
        return piece
