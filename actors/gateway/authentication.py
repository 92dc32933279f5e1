"""Finds the name of a caller: by an API key over HTTP, by a header over NATS."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from secrets import token_bytes

from actors.gateway.admission_settings import CallerSettings
from actors.gateway.errors import InvalidApiKey
from orchestration.errors import InvalidRequest

ANONYMOUS = "anonymous"
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")


class Authenticator:
    """Without callers in the settings every HTTP client is `anonymous`, with any key or none.

    API keys are stored and looked up as HMACs with a random secret, so that the time of a look-up reveals
    nothing about a key, and does not grow with the number of callers.
    """

    def __init__(self, settings: Mapping[str, CallerSettings]) -> None:
        self._settings = settings
        self._secret = token_bytes(32)
        self._names = {
            self._digest(caller.key.get_secret_value().encode()): name for name, caller in settings.items()
        }

    def __repr__(self) -> str:
        return f"Callers({', '.join(self._settings)})"

    def of_http(self, authorization: str) -> str:
        """Return the caller of an `Authorization` header, decoded as Latin-1. Raises `InvalidApiKey`."""
        if not self._settings:
            return ANONYMOUS
        scheme, _, key = authorization.strip().partition(" ")
        raw = key.strip().encode("latin-1", "replace")  # the bytes on the wire
        name = self._names.get(self._digest(raw)) if scheme.lower() == "bearer" else None
        if name is None:
            missing = "missing API key: send Authorization: Bearer KEY"
            raise InvalidApiKey("invalid API key" if authorization else missing)
        return name

    def of_nats(self, name: str) -> str:
        """Return the caller of an `Orchestra-Caller` header; '' is `anonymous`. NATS' permissions decide who
        may send it. Raises `InvalidRequest` for an invalid name."""
        if not name:
            return ANONYMOUS
        if _NAME.fullmatch(name) is None:
            raise InvalidRequest(
                f"invalid Orchestra-Caller {name[:80]!r}: use 1 to 64 of A-Z a-z 0-9 _ . @ -",
                param="Orchestra-Caller",
            )
        return name

    @property
    def named(self) -> bool:
        """Whether the settings name callers. Then a caller sees its own jobs only."""
        return bool(self._settings)

    def namespace(self, caller: str) -> str:
        """Return the namespace whose cached responses and jobs `caller` shares; by default its own name."""
        settings = self._settings.get(caller)
        return caller if settings is None or settings.namespace is None else f"shared:{settings.namespace}"

    def _digest(self, key: bytes) -> bytes:
        return hmac.digest(self._secret, key, "sha256")
