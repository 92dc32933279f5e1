"""Stop strings, found across the borders of tokens."""

from __future__ import annotations

from collections.abc import Sequence


class StopMatcher:
    """Passes text on until a stop string is complete, and never lets a part of one out.

    Text that may become a stop string is held back. Of several, the one completed first counts, and of
    those completed by the same character the longest: the outcome does not depend on how the text is
    cut into pieces. A stop string may begin in the text `before`, which went out already: another node
    wrote it, perhaps one that holds nothing back.
    """

    __slots__ = ("_before", "_held", "_longest", "_stops")

    def __init__(self, stops: Sequence[str], before: str = "") -> None:
        self._stops = tuple(stop for stop in stops if stop)
        self._longest = max(map(len, self._stops), default=0)
        self._held = ""
        self._before = before[-(self._longest - 1) :] if self._longest > 1 else ""

    def push(self, text: str) -> tuple[str, bool]:
        """The text that may go out, and whether a stop string was completed."""
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
        """The text held back, when no more comes."""
        held, self._held = self._held, ""
        return held

    def _open(self, buffer: str) -> int:
        """Length of the longest end of `buffer` that begins a stop string."""
        for size in range(min(len(buffer), self._longest - 1), 0, -1):
            end = buffer[-size:]
            if any(stop.startswith(end) for stop in self._stops):
                return size
        return 0
