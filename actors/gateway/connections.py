"""The open HTTP connections of a gateway: their number is limited, and slow ones are closed."""

from __future__ import annotations

import asyncio
import logging
import resource
from ipaddress import ip_address
from typing import Protocol

from actors.gateway.errors import TooManyConnections
from actors.gateway.metrics import CONNECTIONS, REFUSED
from actors.gateway.settings import GatewaySettings

log = logging.getLogger(__name__)

SPARE_FILES = 512
"""Files for other purposes than HTTP connections."""
SWEEP_S = 0.25
"""Interval of the checks of all connections. One check takes about 0.5 us; a timer per request takes
several."""
MAX_REFUSED = 64
"""Maximum refused connections that get a response at a time; further ones are closed without one."""


def allow_files(connections: int) -> None:
    """Raise this process's limit of open files for `connections` connections, as far as allowed."""
    required = connections + SPARE_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= required:
        return
    allowed = required if hard == resource.RLIM_INFINITY else min(required, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < required:
        log.warning(
            "gateway.max_connections %d needs %d open files, and the limit is %d: raise `ulimit -Hn`",
            connections,
            required,
            allowed,
        )


class TrackedConnection(Protocol):
    """The interface of a connection in the table."""

    address: str
    """The client's address; '' if it is unknown."""

    def check(self, now: float) -> None:
        """Close it if its client is too slow."""

    def close(self) -> None:
        """Close it; it has no request."""


class ConnectionMonitor(Protocol):
    """What a connection tells about its client while a response is generated."""

    def disconnected(self) -> None:
        """The client disconnected."""

    def check(self, now: float) -> None:
        """Called every `SWEEP_S`."""


class ClientConnection(Protocol):
    """The interface of a connection for the request that it serves."""

    @property
    def body_complete(self) -> bool:
        """Whether the body of each request that was read so far is complete."""

    def start_monitor(self, monitor: ConnectionMonitor) -> None:
        """Tell `monitor` about the client. Raises `ClientDisconnected` if it has disconnected already."""

    def stop_monitor(self) -> None:
        """Tell the monitor nothing more."""

    def finish_unread(self) -> None:
        """Accept the rest of the response although the client does not read, and close after it."""


class ConnectionTable:
    """A table of connections. While there are any, they are checked every `SWEEP_S` until `stop`."""

    def __init__(self, settings: GatewaySettings) -> None:
        self.settings = settings
        self.idle: dict[TrackedConnection, None] = {}
        """Connections between two requests, the longest idle first."""
        self._open: set[TrackedConnection] = set()
        self._refused: set[TrackedConnection] = set()
        self._by_address: dict[str, int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._open)

    def update_settings(self, settings: GatewaySettings) -> None:
        """Use other settings for new connections."""
        self.settings = settings
        allow_files(settings.max_connections)

    def stop(self) -> None:
        """Stop the checks."""
        if self._timer is not None:
            self._timer.cancel()

    def enter(self, connection: TrackedConnection) -> TooManyConnections | None:
        """Add a connection, or return the error why not. At `max_connections` the longest idle connection
        is closed instead. See `will_explain` for what to do with the error."""
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
        self._check_later()
        self._by_address[connection.address] = here + 1
        CONNECTIONS.set(len(self._open))
        return None

    def leave(self, connection: TrackedConnection) -> None:
        """Remove a connection."""
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
        """Whether to send a refused connection its error, or to close it at once."""
        return connection in self._refused

    def _refuse(self, connection: TrackedConnection, limit: str, count: int) -> TooManyConnections:
        REFUSED.labels(limit).inc()
        if len(self._refused) < MAX_REFUSED:
            self._refused.add(connection)
            self._check_later()
        message = f"limit reached: {count} of {count} HTTP connections ({limit})"
        return TooManyConnections(message, retry_after_s=1)

    def _check_later(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time()
        for connection in [*self._open, *self._refused]:
            connection.check(now)
        if self._open or self._refused:
            self._check_later()


def address_of(host: str) -> str:
    """Return the key to count connections by: an IPv4 address, or the /64 network of an IPv6 address, since
    one client usually has the whole network."""
    try:
        address = ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return address.packed[:8].hex()
