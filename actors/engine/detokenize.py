"""Bytes of tokens into text that never breaks a character."""

from __future__ import annotations

import codecs

_UTF8 = codecs.getincrementaldecoder("utf-8")


class Detokenizer:
    """Assembles UTF-8 over the borders of tokens.

    Bytes that cannot become a character turn into U+FFFD, as every lenient decoder has it, so the
    pieces joined equal `b"".join(data).decode("utf-8", "replace")`.
    """

    __slots__ = ("_decoder",)

    def __init__(self) -> None:
        self._decoder = _UTF8("replace")

    def push(self, data: bytes) -> str:
        """The characters completed by `data`; empty while one is open."""
        return self._decoder.decode(data)

    def flush(self) -> str:
        """What is left at the end: U+FFFD where a character stayed open."""
        return self._decoder.decode(b"", final=True)
