"""This gateway's part of the quota of one account, as the account's ledger in the bucket `limits` has it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from actors.bus.key_value import Bucket, Entry
from actors.cluster.peers import PeerGroup
from orchestration.errors import OrchestraError
from orchestration.limits import QuotaAccount, QuotaLedger
from orchestration.limits.quota_ledger import BLOCK

log = logging.getLogger(__name__)

DRAW_TIMEOUT_S = 0.15
"""How long to wait for other gateways to return unused permits."""
REFUSED_S = 0.25
"""How long requests are refused without reading the ledger again, after it had no quota."""
IDLE_S = 5.0
"""Tokens of an account without requests are returned after this time."""
RENEW_S = 30.0
"""A ledger in use is rewritten at this interval, before the bucket's TTL removes it."""
FORGET_S = 60.0
"""The lease of an account without requests ends after this time."""


class QuotaLease:
    """`ledger` is the ledger as last seen, at `revision`. It decides the quota of the account here."""

    def __init__(self, account: QuotaAccount, bucket: Bucket, peers: PeerGroup) -> None:
        self.account = account
        self.bucket = bucket
        self.peers = peers
        self.name = peers.name
        self.ledger = QuotaLedger()
        self.revision = 0
        self.closed = False
        """Whether the account has the whole limit again, because this gateway is alone."""
        self._updated_at = self._used_at = time.monotonic()
        self._permits_freed = asyncio.Event()
        self._drawing = asyncio.Lock()
        self._write_lock = asyncio.Lock()
        self._refused: dict[bool, tuple[float, int]] = {}
        """The end of `REFUSED_S`, and the tokens that were refused. Key: whether tokens or a permit."""

    async def draw(self, tokens: int) -> bool:
        """Draw quota for that many tokens, or with 0 for one request. Returns whether there is room now.
        Calls run one after another, so that one may find what another has drawn."""
        async with self._drawing:
            if self.account.has_room(tokens, time.monotonic()):
                return True
            until, refused = self._refused.get(bool(tokens), (0.0, 0))
            if time.monotonic() < until and tokens >= refused:
                return False
            try:
                await (self._draw_tokens(tokens) if tokens else self._draw_permits())
            except OrchestraError as error:
                log.warning("cannot draw on %s: %s", self.account.name, error)
            if self.account.has_room(tokens, time.monotonic()):
                return True
            self._refused[bool(tokens)] = (time.monotonic() + REFUSED_S, tokens)
            return False

    async def contribute(self, tokens: float) -> None:
        """Enter the requests in flight and the tokens left of a gateway that was alone until now."""
        limit = self.account.limit

        def contributed(ledger: QuotaLedger) -> QuotaLedger:
            if limit.requests_in_flight is not None:
                ledger = ledger.with_permits(self.name, self.account.in_flight)
            if limit.tokens_per_minute is not None:
                ledger = ledger.refilled(limit.tokens_per_minute, time.time())
                ledger = ledger.model_copy(update={"tokens": min(ledger.tokens, tokens)})
            return ledger

        try:
            await self._change(contributed)
        except OrchestraError as error:
            log.warning("cannot enter the use of %s into its ledger: %s", self.account.name, error)

    def close(self) -> None:
        """End the lease because no other gateway is left: the account gets the whole limit."""
        self.closed = True
        self.account.quota = None
        bucket = self.account.bucket
        if bucket is not None:
            left = self.ledger.refilled(bucket.per_minute, time.time()).tokens
            bucket.refill(left, time.monotonic())

    def limit_changed(self) -> None:
        """The account has another limit: take what the ledger gives of it, and ask again for more."""
        self._refused.clear()
        self._permits_freed.set()
        self._apply(self.ledger)

    async def on_written(self, ledger: QuotaLedger, revision: int, *, by_me: bool) -> None:
        """The ledger was written, by this gateway or another."""
        if revision > self.revision:
            self._update(ledger, revision)
        if by_me:
            return
        limit = self.account.limit.requests_in_flight
        if limit is not None and ledger.free(limit) > 0:
            self._refused.pop(False, None)
            self._permits_freed.set()
        if ledger.short_peers(self.name, time.time()):
            await self.release_unused()

    async def release_unused(self, *, everything: bool = False) -> bool:
        """Return unused quota to the ledger. Returns True once the lease can end, as the account is idle."""
        account, now = self.account, time.monotonic()
        if account.recently_used or account.in_flight:
            account.recently_used, self._used_at = False, now
        leave = everything or (not account.in_flight and now - self._used_at > FORGET_S)
        back = self._spare_tokens(now, everything=leave)
        limit, bucket = account.limit.requests_in_flight, account.bucket

        def released(ledger: QuotaLedger) -> QuotaLedger:
            if (leave or limit is None) and ledger.permits.get(self.name):
                ledger = ledger.with_permits(self.name, 0)
            elif limit is not None:
                ledger = ledger.yield_permits(self.name, account.in_flight, limit, time.time())
            if back and bucket is not None:
                ledger = ledger.give_tokens(back, bucket.per_minute, time.time())
            return ledger

        renew = now - self._updated_at > RENEW_S
        if not renew and released(self.ledger) == self.ledger:
            self._apply(
                self.ledger, grow=not self._write_lock.locked()
            )  # a peer's shortage ends without a write
            return leave
        if bucket is not None:
            bucket.take(back, now)
        try:
            await self._change(released, anyway=renew)
        except OrchestraError as error:
            log.debug("cannot return quota of %s: %s", account.name, error)
            if bucket is not None:
                bucket.give_back(back, now)
            return False
        return leave and not account.in_flight

    def _spare_tokens(self, now: float, *, everything: bool) -> float:
        """Return the tokens to give back. They are negative for a debt, which all gateways share."""
        bucket = self.account.bucket
        if bucket is None:
            return 0.0
        level, block = bucket.level(now), bucket.per_minute / BLOCK
        if everything or level < 0 or now - self._used_at > IDLE_S:
            return level
        return level - block if level > 2 * block else 0.0

    async def _draw_permits(self) -> None:
        limit = self.account.limit.requests_in_flight
        assert limit is not None
        until = time.monotonic() + DRAW_TIMEOUT_S
        while True:
            self._permits_freed.clear()
            ledger = await self._change(
                lambda ledger: ledger.draw_permits(self.name, self.account.in_flight, limit, time.time())
            )
            others = any(held and name != self.name for name, held in ledger.permits.items())
            left_s = until - time.monotonic()
            if self.account.has_room(0, time.monotonic()) or not others or left_s <= 0:
                return
            try:
                async with asyncio.timeout(left_s):
                    await self._permits_freed.wait()
            except TimeoutError:
                return

    async def _draw_tokens(self, tokens: int) -> None:
        bucket = self.account.bucket
        assert bucket is not None
        taken = 0.0

        def drawn(ledger: QuotaLedger) -> QuotaLedger:
            nonlocal taken
            short = tokens - bucket.level(time.monotonic())
            changed, taken = ledger.draw_tokens(short, bucket.per_minute, time.time())
            return changed

        await self._change(drawn)
        bucket.give_back(taken, time.monotonic())

    async def _change(
        self, edit: Callable[[QuotaLedger], QuotaLedger], *, anyway: bool = False
    ) -> QuotaLedger:
        """Write the ledger that `edit` returns; with `anyway` also if it is unchanged. `edit` may be called
        several times. Returns the ledger. Raises what the bus raises."""
        ledger = QuotaLedger()

        def edit_entry(entry: Entry) -> bytes | None:
            nonlocal ledger
            present = QuotaLedger.read(entry.value)
            if self.peers.settled:
                present = present.only(self.peers.peers.keys() | {self.name})
            ledger = edit(present)
            if ledger == present and not anyway:
                return None
            self._apply(ledger)  # before the write, so that no request here takes what is given back
            return ledger.model_dump_json().encode()

        async with self._write_lock:
            entry = await self.bucket.update(self.account.name, edit_entry, holder=self.name, sure=False)
            self._update(ledger, entry.revision)
            self._apply(self.ledger, grow=True)
            return ledger

    def _update(self, ledger: QuotaLedger, revision: int) -> None:
        if revision < self.revision:
            return
        self.ledger, self.revision, self._updated_at = ledger, revision, time.monotonic()
        self._apply(ledger, grow=not self._write_lock.locked())
        bucket = self.account.bucket
        if bucket is not None and not self.closed:
            bucket.unclaimed = ledger.refilled(bucket.per_minute, time.time()).tokens

    def _apply(self, ledger: QuotaLedger, *, grow: bool = False) -> None:
        """Adopt the quota that `ledger` gives this gateway. Only with `grow`, once the ledger is written, may
        it be larger than before."""
        account = self.account
        limit = account.limit.requests_in_flight
        if limit is not None and not self.closed:
            quota = ledger.usable(self.name, limit, time.time())
            account.quota = quota if grow or account.quota is None else min(account.quota, quota)
