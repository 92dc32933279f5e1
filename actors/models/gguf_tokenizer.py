"""Converts the tokenizer in a GGUF file's metadata to a `tokenizer.json`.

Only pre-tokenizers whose result was compared with llama.cpp's, text by text, are taken
(tests/actors/models/test_tokenizer.py); the others are refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from actors.models import sentencepiece
from actors.models.errors import CorruptModel, UnsupportedModel

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4
"""Values of `tokenizer.ggml.token_type`."""

_BYTE_LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
_GPT2 = [_BYTE_LEVEL]
_SMOLLM = [{"type": "Digits", "individual_digits": True}, _BYTE_LEVEL]
_LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3 = [
    {"type": "Split", "pattern": {"Regex": _LLAMA3_PATTERN}, "behavior": "Isolated", "invert": False},
    _BYTE_LEVEL | {"use_regex": False},
]
_PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "smollm": _SMOLLM,
    "gpt-2": _GPT2,
    "llama-bpe": _LLAMA3,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
}

_END_OF_GENERATION = frozenset(
    {
        "<|eot_id|>",
        "<|eom_id|>",
        "<|im_end|>",
        "<|end|>",
        "<|endoftext|>",
        "<|end_of_text|>",
        "<end_of_turn>",
        "<|eos|>",
        "</s>",
        "<EOT>",
        "<|eot|>",
        "<|return|>",
        "<|END_OF_TURN_TOKEN|>",
    }
)
"""Control tokens that always end an answer, regardless of the metadata (llama.cpp's list)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GgufTokenizer:
    """A tokenizer as `json`, and the tokens that begin a text and end an answer."""

    json: str
    tokens: list[str]
    bos_token_id: int | None
    eos_token_id: int | None
    add_bos: bool
    eog_token_ids: tuple[int, ...]

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> GgufTokenizer:
        """Read a file's metadata. Raises `UnsupportedModel` and `CorruptModel`."""
        tokens = metadata.get("tokenizer.ggml.tokens")
        if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) for token in tokens):
            raise CorruptModel("the file holds no tokenizer (tokenizer.ggml.tokens)")
        if len(set(tokens)) < len(tokens):
            raise CorruptModel(_duplicate(tokens))
        types = metadata.get("tokenizer.ggml.token_type") or [1] * len(tokens)
        if not isinstance(types, list):
            raise CorruptModel("tokenizer.ggml.token_type is no list")
        if len(types) != len(tokens):
            raise CorruptModel(f"the tokenizer has {len(tokens)} tokens but {len(types)} token types")
        control = _control_ids(tokens, types, str(metadata.get("tokenizer.chat_template", "")))
        bos, eos = (_id(metadata, name, len(tokens)) for name in ("bos", "eos"))
        ends = {eos, _id(metadata, "eot", len(tokens)), _id(metadata, "eom", len(tokens))}
        ends |= {id_ for id_ in control if tokens[id_] in _END_OF_GENERATION}
        return cls(
            json=json.dumps(_document(metadata, tokens, types, control), ensure_ascii=False),
            tokens=tokens,
            bos_token_id=bos,
            eos_token_id=eos,
            add_bos=bos is not None
            and bool(metadata.get("tokenizer.ggml.add_bos_token", _adds_bos(metadata))),
            eog_token_ids=tuple(sorted(id_ for id_ in ends if id_ is not None)),
        )

    def text(self, token_id: int | None) -> str:
        """The spelling of a token; "" for None."""
        return "" if token_id is None else self.tokens[token_id]


def _id(metadata: Mapping[str, Any], name: str, vocabulary: int) -> int | None:
    value = metadata.get(f"tokenizer.ggml.{name}_token_id")
    if value is None:
        return None
    if not isinstance(value, int) or not 0 <= value < vocabulary:
        raise CorruptModel(f"tokenizer.ggml.{name}_token_id {value!r} is not one of {vocabulary} tokens")
    return value


def _duplicate(tokens: list[str]) -> str:
    first_ids: dict[str, int] = {}
    for id_, token in enumerate(tokens):
        first = first_ids.setdefault(token, id_)
        if first != id_:
            return (
                f"the vocabulary holds the token {token[:40]!r} twice, as {first} and {id_} "
                "(tokenizer.ggml.tokens): no tokenizer can tell them apart"
            )
    return "the vocabulary holds a token twice"


def _control_ids(tokens: list[str], types: list[int], template: str) -> set[int]:
    """Control tokens; also user-defined tokens that the chat template uses, as some converters mark them
    so."""
    return {
        id_
        for id_, (token, kind) in enumerate(zip(tokens, types, strict=True))
        if kind in (_CONTROL, _UNKNOWN) or (kind == _USER_DEFINED and len(token) > 2 and token in template)
    }


def _adds_bos(metadata: Mapping[str, Any]) -> bool:
    """Whether a BOS token is added; llama.cpp's default if the file does not say."""
    if metadata.get("tokenizer.ggml.model") == "llama":
        return True
    return _PRE_TOKENIZERS.get(str(metadata.get("tokenizer.ggml.pre", ""))) is _LLAMA3


def _document(
    metadata: Mapping[str, Any], tokens: list[str], types: list[int], control: set[int]
) -> dict[str, Any]:
    added = sorted(control | {id_ for id_, kind in enumerate(types) if kind == _USER_DEFINED})
    model = metadata.get("tokenizer.ggml.model")
    if model == "gpt2":
        parts = _byte_level(metadata, tokens)
    elif model == "llama":
        parts = sentencepiece.parts(metadata, tokens, set(added))
    else:
        raise UnsupportedModel(
            f"tokenizer model {model!r} is not supported; gpt2 (byte-level BPE) and llama (SentencePiece) are"
        )
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added(id_, tokens[id_], id_ in control) for id_ in added],
        "post_processor": None,
        **parts,
    }


def _byte_level(metadata: Mapping[str, Any], tokens: list[str]) -> dict[str, Any]:
    pre = str(metadata.get("tokenizer.ggml.pre", "default"))
    if pre not in _PRE_TOKENIZERS:
        known = ", ".join(sorted(_PRE_TOKENIZERS))
        raise UnsupportedModel(f"pre-tokenizer {pre!r} is not supported; these are: {known}")
    merges = metadata.get("tokenizer.ggml.merges")
    if not isinstance(merges, list):
        raise CorruptModel("the tokenizer has no merges (tokenizer.ggml.merges)")
    return {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": _PRE_TOKENIZERS[pre]},
        "decoder": _BYTE_LEVEL,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            # Llama 3 looks a whole word up before it merges; llama.cpp does so for the same names.
            "ignore_merges": _PRE_TOKENIZERS[pre] is _LLAMA3,
            "vocab": {token: id_ for id_, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def _added(id_: int, content: str, special: bool) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": id_, "content": content, "special": special, **flags}
