"""Text whose characters JSON's escapes may have cut in two."""

from __future__ import annotations


def whole_characters(text: str) -> str:
    """The text with surrogate pairs joined, and U+FFFD for a lone surrogate, which UTF-8 cannot encode."""
    if text.isascii():
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def half_at_end(text: str) -> str:
    """The first half of a character whose second half is to follow, or ''."""
    return text[-1:] if "\ud800" <= text[-1:] <= "\udbff" else ""
