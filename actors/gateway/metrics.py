"""The metrics of a gateway."""

from __future__ import annotations

from functools import lru_cache

from prometheus_client import Counter, Gauge

REQUESTS = Counter("orchestra_gateway_requests", "Requests answered", ["protocol", "route", "status"])
CONNECTIONS = Gauge("orchestra_gateway_connections", "HTTP connections open now")

REFUSED = Counter(
    "orchestra_gateway_refused", "Requests and connections refused at a limit of the gateway", ["limit"]
)
RUN_EVENT_STREAMS = Gauge("orchestra_gateway_run_event_streams", "Open streams of run events")
CACHE = Counter(
    "orchestra_gateway_cache",
    "Cacheable requests: answered from the cache (hit), from an equal request in progress (shared), or "
    "generated (miss)",
    ["result"],
)
CACHE_ENTRIES = Gauge("orchestra_gateway_cache_entries", "Responses cached in this process")
CACHE_BYTES = Gauge("orchestra_gateway_cache_bytes", "Bytes of the responses cached in this process")
CACHE_EVICTED = Counter("orchestra_gateway_cache_evicted", "Cached responses evicted to make room")
COALESCED = Gauge(
    "orchestra_gateway_coalesced_requests", "Generations in progress that further equal requests can join"
)


@lru_cache(maxsize=1024)
def _requests(protocol: str, route: str, status: int) -> Counter:
    return REQUESTS.labels(protocol, route, str(status))


def count_request(protocol: str, route: str, status: int) -> None:
    """Count one response. `route` is one of a fixed set, never a path as the client sent it."""
    _requests(protocol, route, status).inc()
