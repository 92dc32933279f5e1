"""What need not be done twice: the response cache, and one generation for equal requests.

Pure: time comes in as an argument, in seconds on any clock that never goes back.
"""

from orchestration.response_cache.cache import Cache
from orchestration.response_cache.fingerprint import fingerprint, is_deterministic
from orchestration.response_cache.single_flight import Flight, Follower, TooSlow

__all__ = [
    "Cache",
    "Flight",
    "Follower",
    "TooSlow",
    "fingerprint",
    "is_deterministic",
]
