"""Limits that all gateways of a cluster share, without asking anybody while the own share does.

A gateway alone has all of every limit, and nothing here happens. With others there, each account has a
`Book` in the bucket `limits`: a request that does not fit into what this gateway has of it waits for one
change of the book, and after that the share is there for the next ones. What is not used goes back.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from actors.bus.bus import Bus, Message, Subscription
from actors.bus.key_value import HOLDER, SEQUENCE, Bucket
from actors.bus.subjects import decode_token
from actors.gateway.metrics import REFUSED
from actors.gateway.peers import Neighbours
from actors.gateway.quota_lease import Share
from orchestration.limits import Account, Book, Limits, OverLimit

T = TypeVar("T")

BUCKET = "limits"
TICK_S = 0.25
MAX_TRIES = 8


class Shares:
    """Ask `within` for what a limit may refuse."""

    def __init__(self, bus: Bus, limits: Limits) -> None:
        self.bus = bus
        self.limits = limits
        self.bucket = Bucket(bus, BUCKET)
        self.neighbours = Neighbours(bus, self._neighbours_changed)
        self._sharing = False
        self._shares: dict[str, Share] = {}
        """Of accounts that were drawn on lately, by name."""
        self._subscription: Subscription | None = None
        self._ticking: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Where nothing is limited, nothing is shared."""
        if not self.limits.shared:
            return
        self.limits.on_account = self._account_made
        self._subscription = await self.bus.subscribe(f"watch.{BUCKET}.*", self._written)
        await self.neighbours.start()
        self._ticking = asyncio.get_running_loop().create_task(self._tick())

    async def stop(self) -> None:
        """Leave everything to the others."""
        if self._ticking is None:
            return
        self._ticking.cancel()
        if self._subscription is not None:
            await self._subscription.unsubscribe()
        for share in list(self._shares.values()):
            await share.tidy(everything=True)
        await self.neighbours.stop()

    async def within(self, take: Callable[[], T]) -> T:
        """What `take` returns; where it raises `OverLimit`, again after drawing on what others leave.

        Raises `OverLimit` when the limit is reached in the whole cluster, and whatever else `take` raises.
        """
        for _ in range(MAX_TRIES):
            try:
                return take()
            except OverLimit as error:
                share = self._share_of(error.account)
                if share is None or not await share.more(error.tokens):
                    REFUSED.labels(error.limit).inc()
                    raise
        return take()

    def _share_of(self, account: Account | None) -> Share | None:
        """None for what no other gateway has a part of."""
        if account is None or not self._sharing or not account.limit.shared:
            return None
        share = self._shares.get(account.name)
        if share is None or share.account is not account:
            share = self._shares[account.name] = Share(account, self.bucket, self.neighbours)
        return share

    def _account_made(self, account: Account) -> None:
        """A new account has nothing of what is shared until it draws."""
        if self._sharing:
            account.detach(time.monotonic())

    async def _neighbours_changed(self) -> None:
        others = bool(self.neighbours.others)
        if others and not self._sharing:
            self._sharing = True
            now = time.monotonic()
            had = [(account, account.detach(now)) for account in self.limits.accounts]
            for account, tokens in had:
                full = tokens >= (account.limit.tokens_per_minute or 0)
                share = None if full and not account.in_flight else self._share_of(account)
                if share is not None:
                    await share.bring(tokens)
        elif self._sharing and not others:
            for account in self.limits.accounts:
                share = self._share_of(account)
                if share is not None:
                    share.close()
            self._sharing = False
            self._shares.clear()

    async def _written(self, message: Message) -> None:
        """A book was written by somebody."""
        share = self._shares.get(decode_token(message.subject.rsplit(".", 1)[-1]))
        if share is not None:
            revision = int(message.header(SEQUENCE, "0"))
            by_me = message.header(HOLDER) == self.neighbours.name
            await share.written(Book.read(message.data), revision, by_me=by_me)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            if not self.bus.connected:
                continue
            for name, share in list(self._shares.items()):
                if await share.tidy() and self._shares.get(name) is share:
                    del self._shares[name]
