"""Converts text to token ids and back; control tokens are recognised only in trusted text."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path

import tokenizers
from tokenizers import decoders

from actors.models.errors import CorruptModel

TOKENIZER = "tokenizer.json"

_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


def byte_alphabet() -> dict[str, int]:
    """GPT-2's printable stand-in of each byte (openai/gpt-2, encoder.py, `bytes_to_unicode`)."""
    printable = [*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


class Tokenizer:
    """The tokenizer of a model folder. Immutable, so threads may share it."""

    def __init__(self, inner: tokenizers.Tokenizer) -> None:
        inner.no_padding()
        inner.no_truncation()
        # True means that special tokens in text are *not* recognised.
        inner.encode_special_tokens = True
        self._inner = inner
        added = inner.get_added_tokens_decoder()
        self._specials = {token.content: id_ for id_, token in added.items() if token.special}
        self._special_ids = frozenset(self._specials.values())
        longest_first = sorted(filter(None, self._specials), key=len, reverse=True)
        self._control = (
            re.compile("(" + "|".join(map(re.escape, longest_first)) + ")") if longest_first else None
        )
        unknown = inner.token_to_id(str(getattr(inner.model, "unk_token", None)))
        self._forbidden = self._special_ids - {unknown}
        self._bytes: dict[int, bytes] = {}

    @classmethod
    def load(cls, folder: Path) -> Tokenizer:
        """Read `tokenizer.json` of a model folder. Raises `CorruptModel` if it is invalid."""
        try:
            return cls(tokenizers.Tokenizer.from_file(str(folder / TOKENIZER)))
        except Exception as error:  # the library raises it bare, for every cause
            raise CorruptModel(f"{folder / TOKENIZER} cannot be read: {error}") from error

    @property
    def control_tokens(self) -> frozenset[str]:
        """The spellings of the control tokens, as `ChatTemplate` wants them."""
        return frozenset(self._specials)

    @property
    def inner(self) -> tokenizers.Tokenizer:
        """The library's tokenizer, which encodes control tokens as text. Do not modify it."""
        return self._inner

    @cached_property
    def vocabulary(self) -> int:
        """The number of tokens, control tokens included."""
        return self._inner.get_vocab_size()

    def encode(self, text: str, *, specials: bool) -> list[int]:
        """Token ids of `text`, without a token for the beginning or end.

        With `specials`, the text of a control token becomes that token: for trusted text such as a
        template's. Without, it stays text, cut into ordinary tokens: for what a user wrote.
        """
        if not specials or self._control is None:
            return self._ordinary(text)
        ids: list[int] = []
        for at, piece in enumerate(self._control.split(text)):
            ids += [self._specials[piece]] if at % 2 else self._ordinary(piece)
        return ids

    def _ordinary(self, text: str) -> list[int]:
        """Ids of text whose control tokens, if any, are only text."""
        ids = self._ids(text, add_special_tokens=False) if text else []
        if self._forbidden.isdisjoint(ids):
            return ids
        # The model's merges or its word list produced a control token: encode character by character.
        return [id_ for char in text for id_ in self._inner.encode(char, add_special_tokens=False).ids]

    def _ids(self, text: str, *, add_special_tokens: bool) -> list[int]:
        """A batch of one, because `encode` holds the GIL (0.6 s for a megabyte) and batches release it."""
        batch = self._inner.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        return list(batch[0].ids)

    def encode_sentence(self, text: str) -> list[int]:
        """Token ids of `text` for an embedding model, with its first and last special token."""
        return self._ids(text, add_special_tokens=True)

    def token_id(self, token: str) -> int | None:
        """The id of the token spelled `token` in the vocabulary."""
        return self._inner.token_to_id(token)

    def is_special(self, token_id: int) -> bool:
        """Whether it is a control token, which must not appear in an answer."""
        return token_id in self._special_ids

    def decode_bytes(self, token_id: int) -> bytes:
        """The exact bytes a token stands for, maybe only a part of a UTF-8 character.

        A control token gives its spelling; an id that the vocabulary does not have gives b"".
        """
        known = self._bytes.get(token_id)
        if known is None:
            known = self._bytes[token_id] = self._spell(token_id)
        return known

    def decode(self, ids: list[int]) -> str:
        """The text of `ids`, control tokens left out, broken characters as U+FFFD."""
        pieces = (self.decode_bytes(id_) for id_ in ids if not self.is_special(id_))
        return b"".join(pieces).decode(errors="replace")

    @cached_property
    def _added_ids(self) -> frozenset[int]:
        return frozenset(self._inner.get_added_tokens_decoder())

    @cached_property
    def _alphabet(self) -> dict[str, int] | None:
        return byte_alphabet() if isinstance(self._inner.decoder, decoders.ByteLevel) else None

    def _spell(self, token_id: int) -> bytes:
        token = self._inner.id_to_token(token_id)
        if token is None:
            return b""
        if token_id in self._added_ids:
            return token.encode()
        if self._alphabet is not None:
            return bytes(self._alphabet[char] for char in token)
        if byte := _BYTE_TOKEN.fullmatch(token):
            return bytes([int(byte[1], 16)])
        return token.replace("▁", " ").encode()
