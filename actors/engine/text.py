"""Turns tokens into the text that leaves the engine."""

from __future__ import annotations

import codecs
from collections.abc import Sequence

from orchestration.messages import TextDelta, TokenLogprob

_UTF8 = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """Assembles UTF-8 characters across token boundaries.

    Invalid bytes become U+FFFD: the joined texts equal `b"".join(data).decode("utf-8", "replace")`.
    """

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = _UTF8("replace")

    def push(self, data: bytes) -> str:
        """The characters that `data` completes; empty if the last one is incomplete."""
        return self._decoder.decode(data)

    def flush(self) -> str:
        """The rest at the end: U+FFFD if a character is incomplete."""
        return self._decoder.decode(b"", final=True)


class StopMatcher:
    """Passes text on until a stop string is complete; never passes a part of one.

    Text that may become a stop string is held back. The stop string that is completed first counts, and the
    longest of those completed by the same character, so the result does not depend on the chunking. A stop
    string may begin in `before`, the text that another node has already sent.
    """

    __slots__ = ("_before", "_held", "_longest", "_stops")

    def __init__(self, stops: Sequence[str], before: str = "") -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self._before = before[-(self._longest - 1) :] if self._longest > 1 else ""

    def push(self, text: str) -> tuple[str, bool]:
        """The text to pass on, and whether a stop string was completed."""
        if not self._stops:
            return text, False
        out = len(self._before)
        buffer = self._before + self._held + text
        found = min(
            ((at + len(stop), at) for stop in self._stops if (at := buffer.find(stop)) >= 0), default=None
        )
        if found is not None:
            self._held = ""
            return buffer[out : found[1]], True
        keep = min(self._open(buffer), len(buffer) - out)
        self._held = buffer[len(buffer) - keep :]
        passed = buffer[out : len(buffer) - keep]
        self._before = (self._before + passed)[-out:] if out else ""
        return passed, False

    def flush(self) -> str:
        """The text held back, at the end."""
        held, self._held = self._held, ""
        return held

    def _open(self, buffer: str) -> int:
        """Length of the longest suffix of `buffer` that begins a stop string."""
        for size in range(min(len(buffer), self._longest - 1), 0, -1):
            end = buffer[-size:]
            if any(stop.startswith(end) for stop in self._stops):
                return size
        return 0


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
