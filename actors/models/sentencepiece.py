"""SentencePiece's BPE, tokenizer model `llama` of GGUF, as parts of a `tokenizer.json`.

SentencePiece merges the neighbours whose joined piece has the highest score; `tokenizers` merges by a list
of pairs. So every way to cut a piece into two known ones becomes a merge, in the order of the scores, as
transformers' converter does (`generate_merges`). Bytes that no piece covers become byte tokens.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actors.models.errors import CorruptModel, UnsupportedModel

_SPACE = "▁"
_MAX_PIECE_CHARS = 256


def parts(metadata: Mapping[str, Any], tokens: list[str], added: set[int]) -> dict[str, Any]:
    """Model, normalizer and decoder; `added`: ids of the tokens that are never merged.

    Raises `CorruptModel`, and `UnsupportedModel` for a vocabulary without byte tokens.
    """
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise CorruptModel("the tokenizer has no score for each token (tokenizer.ggml.scores)")
    vocabulary = {token: id_ for id_, token in enumerate(tokens)}
    if not all(f"<0x{byte:02X}>" in vocabulary for byte in range(256)):
        raise UnsupportedModel("a SentencePiece tokenizer without a token for every byte")
    unknown = metadata.get("tokenizer.ggml.unknown_token_id", 0)
    if not isinstance(unknown, int) or not 0 <= unknown < len(tokens):
        raise CorruptModel(f"tokenizer.ggml.unknown_token_id {unknown!r} is not one of {len(tokens)} tokens")
    spaces: list[dict[str, Any]] = [{"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}]
    if metadata.get("tokenizer.ggml.add_space_prefix", True):
        spaces.insert(0, {"type": "Prepend", "prepend": _SPACE})
    return {
        "normalizer": {"type": "Sequence", "normalizers": spaces},
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
            ],
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": tokens[unknown],
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": True,
            "byte_fallback": True,
            "ignore_merges": False,
            "vocab": vocabulary,
            "merges": _merges(tokens, scores, vocabulary, added),
        },
    }


def _merges(
    tokens: list[str], scores: list[float], vocabulary: Mapping[str, int], added: set[int]
) -> list[list[str]]:
    pairs = []
    for id_, piece in enumerate(tokens):
        if id_ in added or len(piece) > _MAX_PIECE_CHARS:
            continue
        for cut in range(1, len(piece)):
            left, right = piece[:cut], piece[cut:]
            if left in vocabulary and right in vocabulary:
                pairs.append((-scores[id_], vocabulary[left], vocabulary[right], left, right))
    pairs.sort()
    return [[left, right] for *_, left, right in pairs]
