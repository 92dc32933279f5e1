"""Finds the name of a caller: by an API key over HTTP, by a header over NATS."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from ipaddress import ip_address
from secrets import token_bytes

from actors.config.key_hash import HASHED, hash_of
from actors.gateway.admission_settings import ADMIN, CallerSettings
from actors.gateway.errors import Forbidden, InvalidApiKey
from orchestration.errors import InvalidRequest
from orchestration.validation import split_address

ANONYMOUS = "anonymous"
_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}")


class Authenticator:
    """Without callers in the settings every HTTP client is `anonymous`, with any key or none.

    API keys are stored and looked up as HMACs of their SHA-256 with a random secret, so that the time of a
    look-up reveals nothing about a key, and does not grow with the number of callers.
    """

    def __init__(self, settings: Mapping[str, CallerSettings]) -> None:
        self._secret = token_bytes(32)
        self.update_settings(settings)

    def update_settings(self, settings: Mapping[str, CallerSettings]) -> None:
        """Take other callers: requests that come from now on need their keys."""
        self._settings = settings
        self._names = {
            self._digest(hash_of(caller.key.get_secret_value())): name for name, caller in settings.items()
        }

    def __repr__(self) -> str:
        return f"Callers({', '.join(self._settings)})"

    def of_http(self, authorization: str) -> str:
        """Return the caller of an `Authorization` header, decoded as Latin-1. Raises `InvalidApiKey`."""
        if not self._settings:
            return ANONYMOUS
        scheme, _, key = authorization.strip().partition(" ")
        raw = key.strip().encode("latin-1", "replace")  # the bytes on the wire
        hashed = HASHED + hashlib.sha256(raw).hexdigest()
        name = self._names.get(self._digest(hashed)) if scheme.lower() == "bearer" else None
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

    def check_scope(self, caller: str, scope: str) -> None:
        """Check that a caller may use the routes of `scope`, where the settings name callers. Raises
        `Forbidden`."""
        settings = self._settings.get(caller)
        if settings is not None and scope not in settings.scopes:
            scopes = ", ".join(settings.scopes) or "none"
            raise Forbidden(
                f"the key of caller {caller!r} lacks the scope {scope!r}; it has: {scopes} "
                f"(gateway.callers.{caller}.scopes)"
            )

    def check_nats_admin(self, caller: str) -> None:
        """Check that a caller of the settings has the scope `admin`. NATS' permissions decide who else may
        send to the subjects of operators. Raises `Forbidden`."""
        self.check_scope(caller, ADMIN)

    @property
    def named(self) -> bool:
        """Whether the settings name callers. Then a caller sees its own jobs only."""
        return bool(self._settings)

    def namespace(self, caller: str) -> str:
        """Return the namespace whose cached responses and jobs `caller` shares; by default its own name."""
        settings = self._settings.get(caller)
        return caller if settings is None or settings.namespace is None else f"shared:{settings.namespace}"

    def _digest(self, hashed: str) -> bytes:
        return hmac.digest(self._secret, hashed.encode(), "sha256")


def check_local(listens_on: str, host: str, origin: str) -> None:
    """Check a request for operators that needs no key: the gateway must listen on a loopback address, and no
    page of another site may send the request through an operator's browser.

    `host` and `origin` are headers of the request. Raises `Forbidden`.
    """
    listener = split_address(listens_on)[0]
    if not _is_loopback(listener):
        raise Forbidden(
            "without keys /admin answers on a loopback address only, and this gateway listens on "
            f"{listener}: "
            'give an operator a key with scopes = ["admin"] in [gateway.callers.NAME]'
        )
    name = host.rpartition("]")[0].removeprefix("[") if host.startswith("[") else host.partition(":")[0]
    if host and not _is_loopback(name):
        raise Forbidden(f"without keys /admin answers to localhost only, not to the host {name[:80]!r}")
    if origin and origin.partition("://")[2] != host:
        raise Forbidden(f"without keys /admin answers no page of another site: {origin[:80]!r}")


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
