"""The open HTTP connections of a gateway: how many there may be, and what becomes of those that lag."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import Protocol

from actors.gateway.errors import TooManyConnections
from actors.gateway.metrics import CONNECTIONS, REFUSED
from actors.gateway.settings import GatewaySettings

SWEEP_S = 0.25
"""Time between two looks at every connection. One look takes about half a microsecond; a timer for each
request would take several."""
MAX_REFUSED = 64
"""ConnectionTable over a limit that are told so at any moment; the others are cut without a word."""


class TrackedConnection(Protocol):
    """What the table needs of a connection."""

    address: str
    """Of the client; '' where it is not known."""

    def check(self, now: float) -> None:
        """Close it if it lags."""

    def close(self) -> None:
        """Close it between two requests."""


class ConnectionTable:
    """A table of connections, checked every `SWEEP_S` between `start` and `stop`."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.idle: dict[TrackedConnection, None] = {}
        """ConnectionTable between two requests, the longest idle first."""
        self._open: set[TrackedConnection] = set()
        self._refused: set[TrackedConnection] = set()
        self._by_address: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def start(self) -> None:
        """Begin to check."""
        self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def stop(self) -> None:
        """End it."""
        if self._timer is not None:
            self._timer.cancel()

    def enter(self, connection: TrackedConnection) -> TooManyConnections | None:
        """Take a connection in, or say why not: it is to be told, or cut at once where `told` is full.

        Where `max_connections` are open, the one that is idle for longest makes room.
        """
        settings = self.settings
        here = self._by_address.get(connection.address, 0)
        if connection.address and here >= settings.max_connections_per_address:
            return self._refuse(connection, "max_connections_per_address", here)
        if len(self._open) >= settings.max_connections:
            if not self.idle:
                return self._refuse(connection, "max_connections", len(self._open))
            longest = next(iter(self.idle))
            self.leave(longest)
            longest.close()
        self._open.add(connection)
        self._by_address[connection.address] = here + 1
        CONNECTIONS.set(len(self._open))
        return None

    def leave(self, connection: TrackedConnection) -> None:
        """Forget a connection."""
        self.idle.pop(connection, None)
        self._refused.discard(connection)
        if connection not in self._open:
            return
        self._open.remove(connection)
        CONNECTIONS.set(len(self._open))
        left = self._by_address[connection.address] - 1
        if left:
            self._by_address[connection.address] = left
        else:
            del self._by_address[connection.address]

    def will_explain(self, connection: TrackedConnection) -> bool:
        """Whether a connection that was refused hears why."""
        return connection in self._refused

    def _refuse(self, connection: TrackedConnection, limit: str, count: int) -> TooManyConnections:
        REFUSED.labels(limit).inc()
        if len(self._refused) < MAX_REFUSED:
            self._refused.add(connection)
        return TooManyConnections(f"{count} HTTP connections are open, which is {limit}", retry_after_s=1)

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [*self._open, *self._refused]:
            connection.check(now)
        self._timer = loop.call_later(SWEEP_S, self._sweep)


def address_of(host: str) -> str:
    """What connections are counted under: an IPv4 address, or the /64 network of an IPv6 address, of which
    one client has all."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return address.packed[:8].hex()
