"""Metrics of the central log."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

PUBLISHED = Counter("orchestra_log_events_published", "Events stored in the stream LOGS")
DROPPED = Counter(
    "orchestra_log_events_dropped",
    "Events lost in their process: no room while NATS was away (full), refused by the stream (refused), not "
    "encodable (invalid), or not published before the process ended (shutdown)",
    ["reason"],
)
WAITING = Gauge("orchestra_log_events_waiting", "Events of this process that NATS has not acknowledged yet")
for _reason in ("full", "refused", "invalid", "shutdown"):
    DROPPED.labels(_reason)
