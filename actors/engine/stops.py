"""Finds stop strings across token boundaries."""

from __future__ import annotations

from collections.abc import Sequence


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
