"""API keys as hashes, so that the cluster's settings hold no key that anyone can read back."""

from __future__ import annotations

import hashlib
import re

HASHED = "sha256:"
SHOWN = 8
"""Hexadecimal digits of a hash that are shown, to tell keys apart."""
_HASH = re.compile(r"sha256:[0-9a-f]{64}")


def hash_of(key: str) -> str:
    """`sha256:` and 64 hexadecimal digits for a key; a hash stays as it is."""
    return key if is_hash(key) else HASHED + hashlib.sha256(key.encode()).hexdigest()


def is_hash(key: str) -> bool:
    return _HASH.fullmatch(key) is not None


def check_key(key: str) -> None:
    """Raise ValueError for a hash that is cut or misspelt, which no key would match."""
    if key.lower().startswith(HASHED) and not is_hash(key):
        raise ValueError("a hashed key is sha256: and 64 hexadecimal digits in lower case")
