"""Limits that all gateways of a cluster share, without a network call while the local quota lasts.

A single gateway has the whole of every limit. With several, each account has a `QuotaLedger` in the bucket
`limits`. A request beyond the local quota waits for one update of the ledger, which usually grants quota
for the next requests too. Unused quota goes back to the ledger.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from actors.bus.bus import Bus, Message, Subscription
from actors.bus.key_value import HOLDER, SEQUENCE, Bucket
from actors.bus.subjects import decode_token
from actors.cluster.peers import PeerGroup
from actors.gateway.metrics import REFUSED
from actors.gateway.quota_lease import QuotaLease
from orchestration.errors import OrchestraError
from orchestration.limits import LimitExceeded, QuotaAccount, QuotaLedger, RateLimiter

log = logging.getLogger(__name__)

T = TypeVar("T")

BUCKET = "limits"
TICK_S = 0.25
MAX_TRIES = 8
JOIN_PAUSE_S = 1.0
"""Pause between two tries to join the other gateways while NATS is away."""


class SharedLimits:
    """Call `acquire` for everything that a limit may refuse."""

    def __init__(self, bus: Bus, limits: RateLimiter) -> None:
        self.bus = bus
        self.limits = limits
        self.bucket = Bucket(bus, BUCKET)
        self.peers = PeerGroup(bus, "gateway", on_change=self._peers_changed)
        self._sharing = False
        self._leases: dict[str, QuotaLease] = {}
        """The leases of accounts in use, by the account's name."""
        self._subscription: Subscription | None = None
        self._ticking: asyncio.Task[None] | None = None
        self._tick_event = asyncio.Event()
        """Set when quota should be returned at once."""
        self._joining: asyncio.Task[None] | None = None
        """Joins the other gateways for limits that came while this one ran."""

    @property
    def sharing(self) -> bool:
        """Whether there are other gateways, with which the limits are divided."""
        return self._sharing

    async def start(self) -> None:
        """Join the other gateways, if there are limits."""
        if self.limits.shared:
            await self._join()

    async def _join(self) -> None:
        self.limits.on_account = self._account_made
        self._subscription = await self.bus.subscribe(f"watch.{BUCKET}.*", self._written)
        await self.peers.start()
        self._ticking = asyncio.get_running_loop().create_task(self._tick())

    def limits_changed(self) -> None:
        """The limits are others now: use them, and join the other gateways if these are the first."""
        for lease in self._leases.values():
            lease.limit_changed()
        self._tick_event.set()
        if self.limits.shared and self._ticking is None and self._joining is None:
            self._joining = asyncio.get_running_loop().create_task(self._join_soon())

    async def _join_soon(self) -> None:
        while True:
            try:
                await self.bus.wait_connected(JOIN_PAUSE_S)
                return await self._join()
            except OrchestraError as error:
                log.warning("limits are not shared with other gateways yet: %s", error)
                await asyncio.sleep(JOIN_PAUSE_S)

    async def stop(self) -> None:
        """Return all quota, and leave the other gateways."""
        if self._joining is not None:
            self._joining.cancel()
        if self._ticking is None:
            return
        self._ticking.cancel()
        if self._subscription is not None:
            await self._subscription.unsubscribe()
        for lease in list(self._leases.values()):
            await lease.release_unused(everything=True)
        await self.peers.stop()

    @property
    def leases(self) -> int:
        """The number of limits of which this gateway holds a part."""
        return len(self._leases)

    async def acquire(self, take: Callable[[], T]) -> T:
        """Return what `take` returns. When it raises `LimitExceeded`, draw quota that other gateways do not
        use and try again.

        Raises `LimitExceeded` when the limit is reached in the whole cluster, and what else `take` raises.
        """
        for _ in range(MAX_TRIES):
            try:
                return take()
            except LimitExceeded as error:
                lease = self._lease_of(error.account)
                if lease is None or not await lease.draw(error.tokens):
                    REFUSED.labels(error.limit).inc()
                    raise
        return take()

    def _lease_of(self, account: QuotaAccount | None) -> QuotaLease | None:
        """Return the lease of an account, or None for a limit that gateways do not share."""
        if account is None or not self._sharing or not account.limit.shared:
            return None
        lease = self._leases.get(account.name)
        if lease is None or lease.account is not account:
            lease = self._leases[account.name] = QuotaLease(account, self.bucket, self.peers)
        return lease

    def _account_made(self, account: QuotaAccount) -> None:
        """A new account has no quota until it draws some."""
        if self._sharing:
            account.detach(time.monotonic())

    async def _peers_changed(self) -> None:
        others = bool(self.peers.peers)
        if others and not self._sharing:
            self._sharing = True
            now = time.monotonic()
            had = [(account, account.detach(now)) for account in self.limits.accounts]
            for account, tokens in had:
                full = tokens >= (account.limit.tokens_per_minute or 0)
                lease = None if full and not account.in_flight else self._lease_of(account)
                if lease is not None:
                    await lease.contribute(tokens)
        elif self._sharing and not others:
            for account in self.limits.accounts:
                lease = self._lease_of(account)
                if lease is not None:
                    lease.close()
            self._sharing = False
            self._leases.clear()

    async def _written(self, message: Message) -> None:
        """A ledger was written, by this gateway or another."""
        lease = self._leases.get(decode_token(message.subject.rsplit(".", 1)[-1]))
        if lease is not None:
            revision = int(message.header(SEQUENCE, "0"))
            by_me = message.header(HOLDER) == self.peers.name
            await lease.on_written(QuotaLedger.read(message.data), revision, by_me=by_me)

    async def _tick(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._tick_event.wait()
            self._tick_event.clear()
            if not self.bus.connected:
                continue
            for name, lease in list(self._leases.items()):
                if await lease.release_unused() and self._leases.get(name) is lease:
                    del self._leases[name]
