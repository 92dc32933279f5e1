"""This gateway's share of one account, and the account's book in the bucket `limits`."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from actors.bus.key_value import Bucket, Entry
from actors.gateway.peers import Neighbours
from orchestration.errors import OrchestraError
from orchestration.limits import Account, Book
from orchestration.limits.quota_ledger import BLOCK

log = logging.getLogger(__name__)

PATIENCE_S = 0.15
"""For other gateways to give up what they do not use; they hear of it within milliseconds."""
REFUSED_S = 0.25
"""After a refusal the next ones are told so at once for this long, without another look."""
IDLE_S = 5.0
"""Tokens of an account that nobody uses go back after this."""
RENEW_S = 30.0
"""A book that is in use is written anew, before the bucket's TTL forgets it."""
FORGET_S = 60.0
"""An account that nobody uses is given up."""


class Share:
    """`book` is as it was last seen, at `revision`; the account has what the book gives this gateway."""

    def __init__(self, account: Account, bucket: Bucket, neighbours: Neighbours) -> None:
        self.account = account
        self.bucket = bucket
        self.neighbours = neighbours
        self.me = neighbours.name
        self.book = Book()
        self.revision = 0
        self.closed = False
        """Whether the account has all of its limit again."""
        self._seen_at = self._used_at = time.monotonic()
        self._news = asyncio.Event()
        self._turn = asyncio.Lock()
        self._writing = asyncio.Lock()
        self._refused: dict[bool, tuple[float, int]] = {}
        """Until when, and how many tokens, were refused; by whether it was about tokens."""

    async def more(self, tokens: int) -> bool:
        """Whether there is room now for that many tokens, or (0) for one request more. Whoever waits for
        its turn finds what another has drawn."""
        async with self._turn:
            if self.account.holds(tokens, time.monotonic()):
                return True
            until, refused = self._refused.get(bool(tokens), (0.0, 0))
            if time.monotonic() < until and tokens >= refused:
                return False
            try:
                await (self._draw_tokens(tokens) if tokens else self._draw_place())
            except OrchestraError as error:
                log.warning("cannot draw on %s: %s", self.account.name, error)
            if self.account.holds(tokens, time.monotonic()):
                return True
            self._refused[bool(tokens)] = (time.monotonic() + REFUSED_S, tokens)
            return False

    async def bring(self, tokens: float) -> None:
        """Put into the book what a gateway that was alone knows: its requests, and the tokens left."""
        limit = self.account.limit

        def brought(book: Book) -> Book:
            if limit.requests_in_flight is not None:
                book = book.place(self.me, self.account.in_flight)
            if limit.tokens_per_minute is not None:
                book = book.flowed(limit.tokens_per_minute, time.time())
                book = book.model_copy(update={"tokens": min(book.tokens, tokens)})
            return book

        try:
            await self._change(brought)
        except OrchestraError as error:
            log.warning("other gateways do not learn of %s: %s", self.account.name, error)

    def close(self) -> None:
        """No other gateway is there: the account has all that nobody has taken."""
        self.closed = True
        self.account.share = None
        bucket = self.account.bucket
        if bucket is not None:
            left = self.book.flowed(bucket.per_minute, time.time()).tokens
            bucket.fill(left, time.monotonic())

    async def written(self, book: Book, revision: int, *, by_me: bool) -> None:
        """The book was written by somebody."""
        if revision > self.revision:
            self._saw(book, revision)
        if by_me:
            return
        limit = self.account.limit.requests_in_flight
        if limit is not None and book.free(limit) > 0:
            self._refused.pop(False, None)
            self._news.set()
        if book.rivals(self.me, time.time()):
            await self.tidy()

    async def tidy(self, *, everything: bool = False) -> bool:
        """Give up what is not needed here. True once the account is given up, for nobody uses it."""
        account, now = self.account, time.monotonic()
        if account.used or account.in_flight:
            account.used, self._used_at = False, now
        leave = everything or (not account.in_flight and now - self._used_at > FORGET_S)
        back = self._spare_tokens(now, everything=leave)
        limit, bucket = account.limit.requests_in_flight, account.bucket

        def tidied(book: Book) -> Book:
            if limit is not None and leave:
                book = book.place(self.me, 0)
            elif limit is not None:
                book = book.yield_places(self.me, account.in_flight, limit, time.time())
            if back and bucket is not None:
                book = book.give_tokens(back, bucket.per_minute, time.time())
            return book

        renew = now - self._seen_at > RENEW_S
        if not renew and tidied(self.book) == self.book:
            self._use(self.book, more=not self._writing.locked())  # others' wants end with time alone
            return leave
        if bucket is not None:
            bucket.take(back, now)
        try:
            await self._change(tidied, anyway=renew)
        except OrchestraError as error:
            log.debug("cannot give up %s: %s", account.name, error)
            if bucket is not None:
                bucket.give_back(back, now)
            return False
        return leave and not account.in_flight

    def _spare_tokens(self, now: float, *, everything: bool) -> float:
        """What lies here and is not needed; a debt, below 0, is for all to pay."""
        bucket = self.account.bucket
        if bucket is None:
            return 0.0
        level, block = bucket.level(now), bucket.per_minute / BLOCK
        if everything or level < 0 or now - self._used_at > IDLE_S:
            return level
        return level - block if level > 2 * block else 0.0

    async def _draw_place(self) -> None:
        limit = self.account.limit.requests_in_flight
        assert limit is not None
        until = time.monotonic() + PATIENCE_S
        while True:
            self._news.clear()
            book = await self._change(
                lambda book: book.draw_place(self.me, self.account.in_flight, limit, time.time())
            )
            others = any(held and name != self.me for name, held in book.places.items())
            left_s = until - time.monotonic()
            if self.account.holds(0, time.monotonic()) or not others or left_s <= 0:
                return
            try:
                async with asyncio.timeout(left_s):
                    await self._news.wait()
            except TimeoutError:
                return

    async def _draw_tokens(self, tokens: int) -> None:
        bucket = self.account.bucket
        assert bucket is not None
        taken = 0.0

        def drawn(book: Book) -> Book:
            nonlocal taken
            short = tokens - bucket.level(time.monotonic())
            changed, taken = book.draw_tokens(short, bucket.per_minute, time.time())
            return changed

        await self._change(drawn)
        bucket.give_back(taken, time.monotonic())

    async def _change(self, edit: Callable[[Book], Book], *, anyway: bool = False) -> Book:
        """Write what `edit` makes of the book, which may be called several times; `anyway` also where it
        changes nothing. Returns the book. Raises what the bus raises."""
        book = Book()

        def edit_entry(entry: Entry) -> bytes | None:
            nonlocal book
            present = Book.read(entry.value)
            if self.neighbours.settled:
                present = present.among(self.neighbours.others | {self.me})
            book = edit(present)
            if book == present and not anyway:
                return None
            self._use(book)  # before it is written, so that nobody takes here what is given up
            return book.model_dump_json().encode()

        async with self._writing:
            entry = await self.bucket.update(self.account.name, edit_entry, holder=self.me, sure=False)
            self._saw(book, entry.revision)
            self._use(self.book, more=True)
            return book

    def _saw(self, book: Book, revision: int) -> None:
        if revision < self.revision:
            return
        self.book, self.revision, self._seen_at = book, revision, time.monotonic()
        self._use(book, more=not self._writing.locked())
        bucket = self.account.bucket
        if bucket is not None and not self.closed:
            bucket.elsewhere = book.flowed(bucket.per_minute, time.time()).tokens

    def _use(self, book: Book, *, more: bool = False) -> None:
        """Keep to what a book gives this gateway; `more` of it than before only once that is written."""
        account = self.account
        limit = account.limit.requests_in_flight
        if limit is not None and not self.closed:
            share = book.usable(self.me, limit, time.time())
            account.share = share if more or account.share is None else min(account.share, share)
