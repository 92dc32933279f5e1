"""How much each caller, and all of them together, may ask of a gateway.

Everything is taken before the work begins and given back after it, in one step that nobody can come
between, so callers that ask at once cannot get more together than one of them could alone.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping

from orchestration.limits.account import QuotaAccount, QuotaLimit
from orchestration.limits.token_bucket import TokenBucket

REMEMBERED = 10_000
"""Callers without a request at work whose tokens are remembered."""
ALL = "all"
NOTHING = QuotaLimit()


class RateLimiter:
    """`each` holds for every caller that has no limits of its own in `named`; `total` for all together;
    `here` for this gateway alone, however many there are.

    `here_names` says how a limit of `here` is called where it is set.
    """

    def __init__(
        self,
        total: QuotaLimit,
        each: QuotaLimit,
        named: Mapping[str, QuotaLimit],
        *,
        now: float,
        here: QuotaLimit = NOTHING,
        here_names: Mapping[str, str] | None = None,
    ) -> None:
        self.each = each
        self.named = named
        self.on_account: Callable[[QuotaAccount], None] | None = None
        """Hears of each account that is opened, before it is used."""
        self.total = QuotaAccount(total, ALL, "", {}, now)
        self._here = QuotaAccount(here, "", "", here_names or {}, now)
        self._accounts: OrderedDict[str, QuotaAccount] = OrderedDict()

    @property
    def in_flight(self) -> int:
        """Requests at work now."""
        return self._here.in_flight

    @property
    def waiting(self) -> int:
        """Those of them whose answer has not begun."""
        return self._here.waiting

    @property
    def callers(self) -> int:
        """How many are remembered."""
        return len(self._accounts)

    @property
    def accounts(self) -> list[QuotaAccount]:
        """Those that gateways share."""
        return [each for each in (self.total, *self._accounts.values()) if each.limit.shared]

    @property
    def shared(self) -> bool:
        """Whether there is any limit that gateways would share."""
        limits = (self.total.limit, self.each, *self.named.values())
        return any(limit.shared for limit in limits)

    def tokens_left(self, caller: str, now: float) -> float:
        """What `caller` could spend at once; infinity without a limit."""
        buckets = [account.bucket for account in (self.total, self._account(caller, now))]
        return min((bucket.level(now) for bucket in buckets if bucket is not None), default=math.inf)

    def acquire(self, caller: str, now: float) -> Permit:
        """One request more at work. Raises `OverLimit`, and then nothing was taken."""
        accounts = (self._here, self.total, self._account(caller, now))
        for account in accounts:
            account.check_permit()
        for account in accounts:
            account.in_flight += 1
            account.waiting += 1
            account.recently_used = True
        return Permit(accounts)

    def most_tokens(self, caller: str, now: float) -> int | None:
        """What one request of `caller` can take at most; None without a limit."""
        accounts = (self.total, self._account(caller, now))
        sizes = [account.bucket.per_minute for account in accounts if account.bucket is not None]
        return min(sizes, default=None)

    def reserve(self, caller: str, tokens: int, now: float) -> Reservation:
        """Take `tokens`. Raises `OverLimit` saying when they will be there, or `TooManyTokens`."""
        accounts = (self.total, self._account(caller, now))
        for account in accounts:
            account.check_tokens(tokens, now)
        buckets = tuple(account.bucket for account in accounts if account.bucket is not None)
        for bucket in buckets:
            bucket.take(tokens, now)
        for account in accounts:
            account.recently_used = True
        return Reservation(buckets, tokens)

    def _account(self, caller: str, now: float) -> QuotaAccount:
        account = self._accounts.get(caller)
        if account is None:
            limit = self.named.get(caller, self.each)
            account = self._accounts[caller] = QuotaAccount(
                limit, f"caller {caller}", f" of caller {caller!r}", {}, now
            )
            if self.on_account is not None and limit.shared:
                self.on_account(account)
            self._forget_idle()
        else:
            self._accounts.move_to_end(caller)
        return account

    def _forget_idle(self) -> None:
        """Names may be made up by whoever asks, so those that nobody used for longest go first."""
        if len(self._accounts) <= REMEMBERED:
            return
        for caller, account in self._accounts.items():
            if not account.in_flight:
                del self._accounts[caller]
                return


class Permit:
    """One request at work; leave it exactly once, or more often."""

    __slots__ = ("_accounts", "_began", "_left")

    def __init__(self, accounts: tuple[QuotaAccount, ...]) -> None:
        self._accounts = accounts
        self._began = False
        self._left = False

    @property
    def waiting_for_first(self) -> bool:
        """Whether its answer has not begun."""
        return not self._began

    def mark_started(self) -> None:
        """Its answer has begun: it waits no more."""
        if not self._began:
            self._began = True
            for account in self._accounts:
                account.waiting -= 1

    def release(self) -> None:
        """It is no more at work."""
        if not self._left:
            self.mark_started()
            self._left = True
            for account in self._accounts:
                account.in_flight -= 1


class Reservation:
    """Tokens taken for one request; settle it once, when they are known."""

    __slots__ = ("_buckets", "_settled", "tokens")

    def __init__(self, buckets: tuple[TokenBucket, ...], tokens: int) -> None:
        self._buckets = buckets
        self._settled = False
        self.tokens = tokens

    def settle(self, used: int, now: float) -> None:
        """Give back what was not used, or owe what was used beyond it. Later calls do nothing."""
        if not self._settled:
            self._settled = True
            for bucket in self._buckets:
                bucket.give_back(self.tokens - used, now)
