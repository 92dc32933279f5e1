"""The use of one limit: by one caller, or by all callers together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from orchestration.errors import InvalidRequest, Overloaded
from orchestration.limits.token_bucket import TokenBucket

RETRY_S = 1.0
"""`Retry-After` at a limit that frees up when responses end, which cannot be predicted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaLimit:
    """None means unlimited. `queue_depth` counts requests in flight without a first event."""

    requests_in_flight: int | None = None
    queue_depth: int | None = None
    tokens_per_minute: int | None = None

    @property
    def shared(self) -> bool:
        """Whether gateways divide it among themselves; each counts `queue_depth` alone."""
        return self.requests_in_flight is not None or self.tokens_per_minute is not None


class TooManyTokens(InvalidRequest):
    """The request may use more tokens than its caller's `tokens_per_minute`. Reduce `max_tokens`."""

    code = "too_many_tokens"


class LimitExceeded(Overloaded):
    """`limit` is the name of the setting. If gateways divide the limit, `account` is the account that reached
    it, and `tokens` the number requested, 0 for a permit."""

    def __init__(
        self,
        message: str,
        *,
        limit: str,
        retry_after_s: float,
        account: QuotaAccount | None = None,
        tokens: int = 0,
    ) -> None:
        super().__init__(message, retry_after_s=retry_after_s)
        self.limit = limit
        self.account = account
        self.tokens = tokens


class QuotaAccount:
    """`name` identifies the account; `owner` is a part of error messages.

    With several gateways, `quota` is this gateway's part of the requests in flight, and the bucket holds the
    tokens that it has drawn. A single gateway has the whole limit, and a `quota` of None.
    """

    __slots__ = (
        "bucket",
        "in_flight",
        "limit",
        "name",
        "names",
        "owner",
        "quota",
        "recently_used",
        "waiting",
    )

    def __init__(
        self, limit: QuotaLimit, name: str, owner: str, names: Mapping[str, str], now: float
    ) -> None:
        self.limit = limit
        self.name = name
        self.owner = owner
        self.names = names
        self.in_flight = 0
        self.waiting = 0
        self.quota: int | None = None
        self.recently_used = False
        """Whether a request came since it was last set to False."""
        per_minute = limit.tokens_per_minute
        self.bucket = None if per_minute is None else TokenBucket(per_minute, now)

    def change_limit(self, limit: QuotaLimit, now: float, *, sharing: bool) -> None:
        """Take another limit. What is in flight keeps its permits and tokens, and counts. `sharing`: other
        gateways divide the limit, so that what is new has no quota until it is drawn."""
        before, self.limit = self.limit, limit
        if limit.requests_in_flight is None:
            self.quota = None
        elif self.quota is not None:
            self.quota = min(self.quota, limit.requests_in_flight)
        elif sharing:
            self.quota = self.in_flight
        if limit.tokens_per_minute == before.tokens_per_minute:
            return
        if limit.tokens_per_minute is None:
            self.bucket = None
        elif self.bucket is not None:
            self.bucket.change_size(limit.tokens_per_minute, now)
        else:
            self.bucket = TokenBucket(limit.tokens_per_minute, now)
            if sharing:
                self.bucket.drain(now)

    def has_room(self, tokens: int, now: float) -> bool:
        """Whether there is room here for that many tokens, or with 0 for one request."""
        if tokens:
            return self.bucket is None or self.bucket.wait_s(tokens, now) == 0
        most = self.max_in_flight
        return most is None or self.in_flight < most

    @property
    def max_in_flight(self) -> int | None:
        return self.limit.requests_in_flight if self.quota is None else self.quota

    def detach(self, now: float) -> float:
        """Begin to share the limit: the quota is the use at present, and grows by drawing. Returns the tokens
        that the account had."""
        if self.limit.requests_in_flight is not None:
            self.quota = self.in_flight
        return 0.0 if self.bucket is None else self.bucket.drain(now)

    def check_permit(self) -> None:
        """Raises `LimitExceeded`."""
        most = self.max_in_flight
        if most is not None and self.in_flight >= most:
            limit = self.limit.requests_in_flight
            name = self.names.get("requests_in_flight", "requests_in_flight")
            raise LimitExceeded(
                f"limit reached: {limit} of {limit} requests in flight{self.owner} ({name})",
                limit=name,
                retry_after_s=RETRY_S,
                account=self,
            )
        most = self.limit.queue_depth
        if most is not None and self.waiting >= most:
            raise LimitExceeded(
                f"limit reached: {most} of {most} requests{self.owner} wait for a first event (queue_depth)",
                limit="queue_depth",
                retry_after_s=RETRY_S,
            )

    def check_tokens(self, tokens: int, now: float) -> None:
        """Raises `LimitExceeded` and `TooManyTokens`."""
        if self.bucket is None:
            return
        wait_s = self.bucket.wait_s(tokens, now)
        if math.isinf(wait_s):
            raise TooManyTokens(
                f"the request may use {tokens} tokens, more than the limit{self.owner} of "
                f"{self.bucket.per_minute} (tokens_per_minute): lower max_tokens",
                param="max_tokens",
            )
        if wait_s > 0:
            left = max(0, math.floor(self.bucket.with_unclaimed(now)))
            raise LimitExceeded(
                f"limit reached: {left} of {self.bucket.per_minute} tokens per minute{self.owner} are left, "
                f"and the request may use {tokens} (tokens_per_minute)",
                limit="tokens_per_minute",
                retry_after_s=wait_s,
                account=self,
                tokens=tokens,
            )
