"""Resolves host names to public addresses only."""

from __future__ import annotations

import socket

from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import ThreadedResolver

from actors.net.public_addresses import PrivateAddress, is_private


class PublicResolver(AbstractResolver):
    """Resolves names, and refuses those with a private address. aiohttp connects to what it returns."""

    def __init__(self) -> None:
        self._inner = ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        addresses = await self._inner.resolve(host, port, family)
        for address in addresses:
            if is_private(address["host"]):
                raise PrivateAddress(f"{host} resolves to {address['host']}, which is not public")
        return addresses

    async def close(self) -> None:
        await self._inner.close()
