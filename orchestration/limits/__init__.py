"""Limits of callers: requests in flight, requests without a first event, and tokens per minute.

Pure: time comes in as an argument, in seconds on any clock that never goes back.
"""

from orchestration.limits.account import LimitExceeded, QuotaAccount, QuotaLimit, TooManyTokens
from orchestration.limits.quota_ledger import QuotaLedger
from orchestration.limits.rate_limiter import Permit, RateLimiter, Reservation
from orchestration.limits.token_bucket import TokenBucket
from orchestration.limits.token_estimates import Estimate, TokenEstimates

__all__ = [
    "Estimate",
    "LimitExceeded",
    "Permit",
    "QuotaAccount",
    "QuotaLedger",
    "QuotaLimit",
    "RateLimiter",
    "Reservation",
    "TokenBucket",
    "TokenEstimates",
    "TooManyTokens",
]
