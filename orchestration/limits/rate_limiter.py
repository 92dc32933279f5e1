"""Checks and counts the limits of each caller, and of all callers together.

Permits and tokens are taken before the work starts and returned after it, each in one step without an await,
so that concurrent requests cannot exceed a limit together.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Mapping

from orchestration.limits.account import QuotaAccount, QuotaLimit
from orchestration.limits.token_bucket import TokenBucket

MAX_IDLE_ACCOUNTS = 10_000
"""Maximum accounts; beyond it, one without requests is removed, the least recently used first."""
ALL = "all"
NOTHING = QuotaLimit()


class RateLimiter:
    """`named` has the limits of single callers, `each` those of every other caller. `total` limits all
    callers together, `here` this gateway alone.

    `here_names` has the setting's name of a limit in `here`, for errors.
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
        """Called with each new account before its first use."""
        self.total = QuotaAccount(total, ALL, "", {}, now)
        self._here = QuotaAccount(here, "", "", here_names or {}, now)
        self._accounts: OrderedDict[str, QuotaAccount] = OrderedDict()

    def change_limits(
        self,
        total: QuotaLimit,
        each: QuotaLimit,
        named: Mapping[str, QuotaLimit],
        *,
        here: QuotaLimit,
        now: float,
        sharing: bool,
    ) -> None:
        """Take other limits for new requests; see `QuotaAccount.change_limit`."""
        self.each, self.named = each, named
        self.total.change_limit(total, now, sharing=sharing)
        self._here.change_limit(here, now, sharing=False)
        for caller, account in self._accounts.items():
            account.change_limit(named.get(caller, each), now, sharing=sharing)

    @property
    def in_flight(self) -> int:
        """The number of requests in flight."""
        return self._here.in_flight

    @property
    def waiting(self) -> int:
        """The number of requests in flight without a first event."""
        return self._here.waiting

    @property
    def callers(self) -> int:
        """The number of callers with an account."""
        return len(self._accounts)

    @property
    def accounts(self) -> list[QuotaAccount]:
        """The accounts whose limits gateways divide."""
        return [each for each in (self.total, *self._accounts.values()) if each.limit.shared]

    @property
    def shared(self) -> bool:
        """Whether any limit is one that gateways divide."""
        limits = (self.total.limit, self.each, *self.named.values())
        return any(limit.shared for limit in limits)

    def used_shares(self, now: float) -> dict[str, float]:
        """The used share of `tokens_per_minute`, 0 to 1: of the caller that used most of its own (`caller`),
        and of all together (`all`). Without a limit there is no entry."""
        shares = {}
        accounts = {"all": (self.total,), "caller": tuple(self._accounts.values())}
        for scope, each in accounts.items():
            buckets = [account.bucket for account in each if account.bucket is not None]
            buckets = [each for each in buckets if each.refills or each.unclaimed]  # else nothing is known
            if buckets:
                lowest = min(bucket.with_unclaimed(now) / bucket.per_minute for bucket in buckets)
                shares[scope] = min(1.0, max(0.0, 1.0 - lowest))
        return shares

    def tokens_left(self, caller: str, now: float) -> float:
        """The tokens that `caller` could use at once; infinity without a limit."""
        buckets = [account.bucket for account in (self.total, self._account(caller, now))]
        return min((bucket.level(now) for bucket in buckets if bucket is not None), default=math.inf)

    def acquire(self, caller: str, now: float) -> Permit:
        """Take a permit for one request. Raises `LimitExceeded`, without taking anything then."""
        accounts = (self._here, self.total, self._account(caller, now))
        for account in accounts:
            account.check_permit()
        for account in accounts:
            account.in_flight += 1
            account.waiting += 1
            account.recently_used = True
        return Permit(accounts)

    def most_tokens(self, caller: str, now: float) -> int | None:
        """The maximum tokens of one request of `caller`; None without a limit."""
        accounts = (self.total, self._account(caller, now))
        sizes = [account.bucket.per_minute for account in accounts if account.bucket is not None]
        return min(sizes, default=None)

    def reserve(self, caller: str, tokens: int, now: float) -> Reservation:
        """Take `tokens`. Raises `LimitExceeded` with the time until they are there, or `TooManyTokens`."""
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
        """Remove the longest unused account without requests: clients may invent names of callers."""
        if len(self._accounts) <= MAX_IDLE_ACCOUNTS:
            return
        for caller, account in self._accounts.items():
            if not account.in_flight:
                del self._accounts[caller]
                return


class Permit:
    """The permit of one request in flight. Release it at the end; further releases do nothing."""

    __slots__ = ("_accounts", "_began", "_left")

    def __init__(self, accounts: tuple[QuotaAccount, ...]) -> None:
        self._accounts = accounts
        self._began = False
        self._left = False

    @property
    def waiting_for_first(self) -> bool:
        """Whether the request has no first event."""
        return not self._began

    def mark_started(self) -> None:
        """The first event came: count the request as waiting no longer."""
        if not self._began:
            self._began = True
            for account in self._accounts:
                account.waiting -= 1

    def release(self) -> None:
        """Return the permit."""
        if not self._left:
            self.mark_started()
            self._left = True
            for account in self._accounts:
                account.in_flight -= 1


class Reservation:
    """The tokens taken for one request. Settle it once the number used is known."""

    __slots__ = ("_buckets", "_settled", "tokens")

    def __init__(self, buckets: tuple[TokenBucket, ...], tokens: int) -> None:
        self._buckets = buckets
        self._settled = False
        self.tokens = tokens

    def settle(self, used: int, now: float) -> None:
        """Return the unused tokens, or take those used beyond them as a debt. Later calls do nothing."""
        if not self._settled:
            self._settled = True
            for bucket in self._buckets:
                bucket.give_back(self.tokens - used, now)
