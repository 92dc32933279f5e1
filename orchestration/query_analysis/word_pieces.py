"""Splits text into the word pieces of BERT's uncased vocabulary, as all-MiniLM-L6-v2 reads it.

The library `tokenizers` does this too, but it comes with the extra `onnx`, and agents analyse queries without
it.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

_TOKEN = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\W_]+|[^\w\s]|_")
_MAX_WORD_CHARACTERS = 100
"""Characters of a word; longer words are unknown, as in BERT."""


def word_pieces(text: str, vocabulary: Mapping[str, int]) -> list[int]:
    """Return the ids of the longest pieces in `vocabulary`, from left to right. Words without such pieces are
    skipped.

    Source: WordPiece, Wu et al. 2016 (arXiv:1609.08144); BERT, Devlin et al. 2018 (arXiv:1810.04805).
    """
    plain = unicodedata.normalize("NFD", text.lower())
    plain = "".join(character for character in plain if unicodedata.category(character) != "Mn")
    found: list[int] = []
    for word in _TOKEN.findall(plain):
        if len(word) <= _MAX_WORD_CHARACTERS:
            found += _of_word(word, vocabulary)
    return found


def _of_word(word: str, vocabulary: Mapping[str, int]) -> list[int]:
    found: list[int] = []
    at = 0
    while at < len(word):
        for end in range(len(word), at, -1):
            known = vocabulary.get(word[at:end] if at == 0 else f"##{word[at:end]}")
            if known is not None:
                found.append(known)
                at = end
                break
        else:
            return []
    return found
