"""How much callers may ask: requests in flight, requests and tokens per minute.

Pure: time comes in as an argument, in seconds on any clock that never goes back.
"""

from orchestration.limits.account import Account, Limit, OverLimit, TooManyTokens
from orchestration.limits.limits import Limits, Place, Reservation
from orchestration.limits.quota_ledger import Book
from orchestration.limits.token_bucket import TokenBucket
from orchestration.limits.token_estimates import Estimate, TokenEstimates

__all__ = [
    "Account",
    "Book",
    "Estimate",
    "Limit",
    "Limits",
    "OverLimit",
    "Place",
    "Reservation",
    "TokenBucket",
    "TokenEstimates",
    "TooManyTokens",
]
