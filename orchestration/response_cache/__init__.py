"""The parts of the response cache, and of one generation for equal requests.

Pure: time comes in as an argument, in seconds on any clock that never goes back.
"""

from orchestration.response_cache.broadcast_buffer import BroadcastBuffer, Follower, SlowConsumer
from orchestration.response_cache.fingerprint import fingerprint, is_deterministic
from orchestration.response_cache.lru_cache import LruCache

__all__ = [
    "BroadcastBuffer",
    "Follower",
    "LruCache",
    "SlowConsumer",
    "fingerprint",
    "is_deterministic",
]
