"""A message of the bus as actors see it, and its headers as NATS writes them."""

from __future__ import annotations

import re
from dataclasses import dataclass

Headers = dict[str, str]

ERROR = "Nats-Service-Error"
ERROR_CODE = "Nats-Service-Error-Code"
"""Headers of an answer that is an error, as NATS services name them."""

_VERSION = "NATS/1.0"
_BREAKS = str.maketrans({"\r": " ", "\n": " "})
_KEY = re.compile(r"[!-9;-~]+")
_good_keys: set[str] = set()


@dataclass(slots=True)
class Message:
    """One message from the bus. `status` is the code of a server status message such as 503, or ''."""

    subject: str
    reply: str
    data: bytes
    headers: Headers | None

    @property
    def status(self) -> str:
        return self.headers.get("Status", "") if self.headers and not self.data else ""

    def header(self, name: str, default: str = "") -> str:
        return self.headers.get(name, default) if self.headers else default


def encode_headers(headers: Headers) -> bytes:
    """The header block. Line breaks in a value become spaces, so that nothing can be smuggled in.

    Raises ValueError for a name that is not printable ASCII.
    """
    lines = [_VERSION]
    for key, value in headers.items():
        if key not in _good_keys:
            if not _KEY.fullmatch(key):
                raise ValueError(f"{key!r} cannot be the name of a header")
            if len(_good_keys) < 1000:
                _good_keys.add(key)
        lines.append(f"{key}: {value if value.isprintable() else value.translate(_BREAKS)}")
    return "\r\n".join((*lines, "", "")).encode()


def decode_headers(block: bytes) -> Headers:
    """The names and values of a header block, with `Status` and `Description` of the server's own."""
    first, *lines = block.decode("utf-8", "replace").split("\r\n")
    found: Headers = {}
    status = first[len(_VERSION) :].strip()
    if status:
        found["Status"], _, description = status.partition(" ")
        if description:
            found["Description"] = description
    for line in lines:
        key, colon, value = line.partition(":")
        if colon:
            found[key] = value.strip()
    return found


def unix_ns(text: bytes) -> int:
    """A Unix time in nanoseconds as messages carry it; 0 for anything else."""
    text = text.strip()
    return int(text) if text.isdigit() and len(text) <= 19 else 0
