"""Where a run's text goes out to its caller, who may have some of it already."""

from __future__ import annotations

from dataclasses import replace

from orchestration.messages import TextDelta

ANEW = "\n\n"
"""Between what the caller has and an answer that does not go on from it, and takes its place."""


class ResumeFilter:
    """Of one run. The caller has `had`, of `tokens` tokens, from a coordinator that had the run before; a
    pattern says it again from the start, and only what is new goes out."""

    def __init__(self, had: str = "", tokens: int = 0) -> None:
        self.had = had
        self.tokens = tokens
        self.anew = False
        """Whether the answer did not go on from what the caller had."""
        self._again = 0

    @property
    def rest(self) -> str:
        """What the caller has beyond what was said again so far."""
        return self.had[self._again :]

    @property
    def rest_tokens(self) -> int:
        """Of `rest`, about."""
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
