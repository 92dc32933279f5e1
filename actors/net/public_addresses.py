"""Checks that a URL is http or https and leads to a public address."""

from __future__ import annotations

import ipaddress
import socket

from yarl import URL

from orchestration.errors import InvalidRequest

MAX_URL = 2_048


class PrivateAddress(OSError):
    """A host name resolved to an address that is not public."""


def check_url(text: str, *, private: bool) -> URL:
    """Parse the URL of a webhook. `private` allows private addresses. Raises `InvalidRequest`.

    `PublicResolver` checks host names at the time of the call, when they may have another address.
    """
    try:
        url = URL(text)
    except ValueError as error:
        raise InvalidRequest(f"webhook is not a URL: {error}", param="webhook") from error
    if len(text) > MAX_URL or url.scheme not in ("http", "https") or not url.host:
        raise InvalidRequest(
            f"webhook must be an http or https URL of up to {MAX_URL} characters", param="webhook"
        )
    if url.user or url.password:
        raise InvalidRequest("webhook must not contain a user or a password", param="webhook")
    if not private and (is_private(url.host) or url.host.lower().rstrip(".") == "localhost"):
        raise InvalidRequest(
            f"webhook: {url.host} is not a public address (jobs.webhook.private_addresses is false)",
            param="webhook",
        )
    return url


def is_private(host: str) -> bool:
    """Whether `host` is an address that is not public. Names are not; unusual spellings of addresses are."""
    try:
        address = ipaddress.ip_address(host.strip("[]").split("%", 1)[0])
    except ValueError:
        # The system reads 127.1, 0x7f000001 and 2130706433 as addresses, `ipaddress` does not.
        try:
            socket.inet_aton(host)
        except OSError:
            return False
        return True
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    return not address.is_global or (mapped is not None and not mapped.is_global) or address.is_multicast
