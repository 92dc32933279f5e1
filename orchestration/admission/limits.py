"""How much each caller, and all of them together, may ask of a gateway.

Everything is taken before the work begins and given back after it, in one step that nobody can come
between, so callers that ask at once cannot get more together than one of them could alone.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from orchestration.admission.token_bucket import TokenBucket
from orchestration.errors import InvalidRequest, Refused

REMEMBERED = 10_000
"""Callers without a request at work whose tokens are remembered."""
RETRY_S = 1.0
"""When to come back after a limit that frees up as answers end, which nobody can foretell."""


class TooManyTokens(InvalidRequest):
    """The request may take more tokens than its caller's limit ever allows at once."""

    code = "too_many_tokens"


class OverLimit(Refused):
    """`limit` is the name of the setting that was reached."""

    def __init__(self, message: str, *, limit: str, retry_after_s: float) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.limit = limit


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """None is no limit. `queue_depth` counts requests at work whose answer has not begun."""

    requests_in_flight: int | None = None
    queue_depth: int | None = None
    tokens_per_minute: int | None = None


class _Account:
    """What one caller, or all together, have at work. `whose` completes the message of a refusal."""

    __slots__ = ("bucket", "in_flight", "limit", "names", "waiting", "whose")

    def __init__(self, limit: Limit, whose: str, names: Mapping[str, str], now: float) -> None:
        self.limit = limit
        self.whose = whose
        self.names = names
        self.in_flight = 0
        self.waiting = 0
        per_minute = limit.tokens_per_minute
        self.bucket = None if per_minute is None else TokenBucket(per_minute, now)

    def check_place(self) -> None:
        most = self.limit.requests_in_flight
        if most is not None and self.in_flight >= most:
            name = self.names.get("requests_in_flight", "requests_in_flight")
            raise OverLimit(
                f"{most} requests{self.whose} are at work, which is {name}", limit=name, retry_after_s=RETRY_S
            )
        most = self.limit.queue_depth
        if most is not None and self.waiting >= most:
            raise OverLimit(
                f"{most} requests{self.whose} wait for their answer to begin, which is queue_depth",
                limit="queue_depth",
                retry_after_s=RETRY_S,
            )

    def check_tokens(self, tokens: int, now: float) -> None:
        if self.bucket is None:
            return
        wait_s = self.bucket.wait_s(tokens, now)
        if math.isinf(wait_s):
            raise TooManyTokens(
                f"the request may take {tokens} tokens, and tokens_per_minute{self.whose} is "
                f"{self.bucket.per_minute}: ask for fewer with max_tokens",
                param="max_tokens",
            )
        if wait_s > 0:
            raise OverLimit(
                f"the request may take {tokens} tokens; tokens_per_minute{self.whose} is "
                f"{self.bucket.per_minute}, and {max(0, math.floor(self.bucket.level(now)))} are left now",
                limit="tokens_per_minute",
                retry_after_s=wait_s,
            )


class Limits:
    """`each` holds for every caller that has no limits of its own in `named`; `total` for all together.

    `total_names` says how a limit of `total` is called where it is set.
    """

    def __init__(
        self,
        total: Limit,
        each: Limit,
        named: Mapping[str, Limit],
        *,
        now: float,
        total_names: Mapping[str, str] | None = None,
    ) -> None:
        self.each = each
        self.named = named
        self._total = _Account(total, "", total_names or {}, now)
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    @property
    def in_flight(self) -> int:
        """Requests at work now."""
        return self._total.in_flight

    @property
    def waiting(self) -> int:
        """Those of them whose answer has not begun."""
        return self._total.waiting

    @property
    def callers(self) -> int:
        """How many are remembered."""
        return len(self._accounts)

    def tokens_left(self, caller: str, now: float) -> float:
        """What `caller` could spend at once; infinity without a limit."""
        buckets = [account.bucket for account in (self._total, self._account(caller, now))]
        return min((bucket.level(now) for bucket in buckets if bucket is not None), default=math.inf)

    def enter(self, caller: str, now: float) -> Place:
        """One request more at work. Raises `OverLimit`, and then nothing was taken."""
        accounts = (self._total, self._account(caller, now))
        for account in accounts:
            account.check_place()
        for account in accounts:
            account.in_flight += 1
            account.waiting += 1
        return Place(accounts)

    def most_tokens(self, caller: str, now: float) -> int | None:
        """What one request of `caller` can take at most; None without a limit."""
        accounts = (self._total, self._account(caller, now))
        sizes = [account.bucket.per_minute for account in accounts if account.bucket is not None]
        return min(sizes, default=None)

    def reserve(self, caller: str, tokens: int, now: float) -> Reservation:
        """Take `tokens`. Raises `OverLimit` saying when they will be there, or `TooManyTokens`."""
        accounts = (self._total, self._account(caller, now))
        for account in accounts:
            account.check_tokens(tokens, now)
        buckets = tuple(account.bucket for account in accounts if account.bucket is not None)
        for bucket in buckets:
            bucket.take(tokens, now)
        return Reservation(buckets, tokens)

    def _account(self, caller: str, now: float) -> _Account:
        account = self._accounts.get(caller)
        if account is None:
            limit = self.named.get(caller, self.each)
            account = self._accounts[caller] = _Account(limit, f" of caller {caller!r}", {}, now)
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


class Place:
    """One request at work; leave it exactly once, or more often."""

    __slots__ = ("_accounts", "_began", "_left")

    def __init__(self, accounts: tuple[_Account, ...]) -> None:
        self._accounts = accounts
        self._began = False
        self._left = False

    def began(self) -> None:
        """Its answer has begun: it waits no more."""
        if not self._began:
            self._began = True
            for account in self._accounts:
                account.waiting -= 1

    def leave(self) -> None:
        """It is no more at work."""
        if not self._left:
            self.began()
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
