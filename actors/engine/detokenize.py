"""Decodes the bytes of tokens into whole characters."""

from __future__ import annotations

import codecs

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
