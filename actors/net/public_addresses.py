"""Where webhooks may go: http and https, and no private address unless the settings allow it."""

from __future__ import annotations

import ipaddress
import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from orchestration.errors import InvalidRequest

MAX_URL = 2_048


class PrivateAddress(OSError):
    """A name that leads to an address which is not public."""


def check_url(text: str, *, private: bool) -> URL:
    """The URL of a webhook. Raises `InvalidRequest` for one that can never be called.

    A name is looked up when it is called, by `PublicResolver`: it may lead elsewhere by then.
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
        raise InvalidRequest("webhook must not carry a password", param="webhook")
    if not private and (is_private(url.host) or url.host.lower().rstrip(".") == "localhost"):
        raise InvalidRequest(
            f"webhook leads to {url.host}, which is not public (jobs.webhook.private_addresses is false)",
            param="webhook",
        )
    return url


def is_private(host: str) -> bool:
    """Whether `host` is an address, rather than a name, that is not public; odd spellings count as such."""
    try:
        address = ipaddress.ip_address(host.strip("[]").split("%", 1)[0])
    except ValueError:
        # 127.1, 0x7f000001 and 2130706433 are addresses to the system, though not to `ipaddress`.
        try:
            socket.inet_aton(host)
        except OSError:
            return False
        return True
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    return not address.is_global or (mapped is not None and not mapped.is_global) or address.is_multicast


class PublicResolver(AbstractResolver):
    """Looks names up, and refuses those that lead to a private address: what it returns is connected to."""

    def __init__(self) -> None:
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for each in found:
            if is_private(each["host"]):
                raise PrivateAddress(f"{host} leads to {each['host']}, which is not public")
        return found

    async def close(self) -> None:
        await self._inner.close()
