"""What is taken on, and what need not be done twice: limits, the response cache, single-flight, and the
models of a memory that does not hold all.

Pure: time comes in as an argument, in seconds on any clock that never goes back.
"""

from orchestration.admission.account import Account, Limit, OverLimit, TooManyTokens
from orchestration.admission.arrival_order import ArrivalOrder
from orchestration.admission.book import Book
from orchestration.admission.cache import Cache
from orchestration.admission.fingerprint import fingerprint, is_deterministic
from orchestration.admission.grouping import Grouping, Turns, Waiter
from orchestration.admission.limits import Limits, Place, Reservation
from orchestration.admission.residency import Residency
from orchestration.admission.single_flight import Flight, Follower, TooSlow
from orchestration.admission.token_bucket import TokenBucket
from orchestration.admission.token_estimates import Estimate, TokenEstimates

__all__ = [
    "Account",
    "ArrivalOrder",
    "Book",
    "Cache",
    "Estimate",
    "Flight",
    "Follower",
    "Grouping",
    "Limit",
    "Limits",
    "OverLimit",
    "Place",
    "Reservation",
    "Residency",
    "TokenBucket",
    "TokenEstimates",
    "TooManyTokens",
    "TooSlow",
    "Turns",
    "Waiter",
    "fingerprint",
    "is_deterministic",
]
