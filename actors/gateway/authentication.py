"""Who asks: from a key over HTTP, from a header over NATS."""

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
    """Without settings everybody who comes over HTTP is `anonymous`, whatever key they show.

    Keys are held and looked up as HMACs under a key that is drawn at the start: how long a look-up takes
    says nothing about how much of a guess was right, and costs the same with one caller and with a thousand.
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
        """The name behind the header `Authorization`, decoded as Latin-1. Raises `InvalidApiKey`."""
        if not self._settings:
            return ANONYMOUS
        scheme, _, key = authorization.strip().partition(" ")
        raw = key.strip().encode("latin-1", "replace")  # the bytes as they were sent
        name = self._names.get(self._digest(raw)) if scheme.lower() == "bearer" else None
        if name is None:
            missing = "missing API key: send Authorization: Bearer KEY"
            raise InvalidApiKey("invalid API key" if authorization else missing)
        return name

    def of_nats(self, said: str) -> str:
        """The name in the header `Orchestra-Caller`, which NATS's own permissions guard.

        Raises `InvalidRequest` for what cannot be a name.
        """
        if not said:
            return ANONYMOUS
        if _NAME.fullmatch(said) is None:
            raise InvalidRequest(
                f"Orchestra-Caller {said[:80]!r} is not a name: up to 64 of A-Z a-z 0-9 _ . @ -",
                param="Orchestra-Caller",
            )
        return said

    @property
    def named(self) -> bool:
        """Whether the settings name any: then jobs belong to who submitted them."""
        return bool(self._settings)

    def namespace(self, caller: str) -> str:
        """Whose kept answers `caller` shares; its own name unless it is told to share."""
        settings = self._settings.get(caller)
        return caller if settings is None or settings.namespace is None else f"shared:{settings.namespace}"

    def _digest(self, key: bytes) -> bytes:
        return hmac.digest(self._secret, key, "sha256")
