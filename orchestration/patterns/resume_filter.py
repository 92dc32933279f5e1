"""Leaves out the text of a run that its caller has already."""

from __future__ import annotations

from dataclasses import replace

from orchestration.messages import TextDelta

ANEW = "\n\n"
"""Separates the text that the caller has from an answer that replaces it."""


class ResumeFilter:
    """The filter of one run. The caller has the text `had`, of `tokens` tokens, from an earlier coordinator.
    A pattern writes its text from the start, and only what is new goes out."""

    def __init__(self, had: str = "", tokens: int = 0) -> None:
        self.had = had
        self.tokens = tokens
        self.anew = False
        """Whether the answer did not go on from what the caller had."""
        self._again = 0

    @property
    def rest(self) -> str:
        """The text that the caller has beyond what was written again so far."""
        return self.had[self._again :]

    @property
    def rest_tokens(self) -> int:
        """Number of tokens in `rest`, approximately."""
        return round(self.tokens * len(self.rest) / len(self.had)) if self.had else 0

    def new(self, part: TextDelta) -> TextDelta | None:
        """What of `part` the caller does not have; None where that is nothing."""
        rest = self.rest
        if not rest:
            return part
        if rest.startswith(part.text):
            self._again += len(part.text)
            return None
        again, self._again = self.had[: self._again], len(self.had)
        if part.text.startswith(rest):
            return replace(part, text=part.text[len(rest) :], replaces=max(0, part.replaces - len(rest)))
        if part.replaces:
            return part
        self.anew = True
        return replace(part, text=ANEW + again + part.text, replaces=len(ANEW))
