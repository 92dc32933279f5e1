"""What a gateway takes on, and what it need not do twice: limits, the response cache, single-flight.

Pure: time comes in as an argument, in seconds on any clock that never goes back.
"""

from orchestration.admission.cache import Cache
from orchestration.admission.fingerprint import fingerprint, is_deterministic
from orchestration.admission.limits import Limit, Limits, OverLimit, Place, Reservation, TooManyTokens
from orchestration.admission.single_flight import Flight, Follower, TooSlow
from orchestration.admission.token_bucket import TokenBucket

__all__ = [
    "Cache",
    "Flight",
    "Follower",
    "Limit",
    "Limits",
    "OverLimit",
    "Place",
    "Reservation",
    "TokenBucket",
    "TooManyTokens",
    "TooSlow",
    "fingerprint",
    "is_deterministic",
]
